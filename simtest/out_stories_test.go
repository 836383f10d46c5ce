package simtest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/config"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// bounce lets one notification be owed to the sender of a new letter: jansen's
// server knows nobody of that name.
func (w *World) bounce() *Letter {
	w.t.Helper()
	l := w.Write(smallLetter, "nobody@jansen.example")
	w.ok("post", w.Post(l))
	if !l.Taken() {
		w.Fatalf("the letter was not taken: %s", l.Said())
	}
	return l
}

// A notification goes out to the sender's own mail server, found in DNS.
func TestANotificationReachesItsSender(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		home := w.Elsewhere(worldDomain)
		l := w.bounce()
		w.Sleep(2 * time.Second)
		got := home.Got()
		if len(got) != 1 || got[0].From != "" || got[0].To != l.From {
			t.Fatalf("the sender got %+v", got)
		}
		for _, words := range []string{"multipart/report", "Action: failed", "there is no such person here", "Final-Recipient: rfc822;nobody@jansen.example"} {
			if !strings.Contains(string(got[0].Data), words) {
				t.Errorf("the notification does not say %q:\n%s", words, got[0].Data)
			}
		}
	})
}

// MX hosts are tried in their order of preference, the next one when the first
// does not answer.
func TestTheNextMXIsTried(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		first := w.Elsewhere(worldDomain)
		second := w.Elsewhere("second.example")
		w.DNS.SetMX(worldDomain, "mx."+worldDomain+".", "mx.second.example.")
		w.Net.Silence(first.addr, true)
		w.bounce()
		w.Sleep(time.Minute)
		if n, m := len(first.Got()), len(second.Got()); n != 0 || m != 1 {
			t.Errorf("the first MX has %d notifications and the second %d", n, m)
		}
	})
}

// A domain that says by a null MX that it takes no mail is believed at once
// (RFC 7505): the notification, which may not bounce, is gone.
func TestANullMXTakesNoMail(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.DNS.SetMX(worldDomain, ".")
		w.bounce().Forgive()
		w.Sleep(time.Minute)
		if n := w.Waiting("out/" + worldDomain); n != 0 {
			t.Errorf("%d notifications wait", n)
		}
		if n := w.journal.times("failed"); n != 2 {
			t.Errorf("%d failures are in the log; expected the letter's and the notification's", n)
		}
	})
}

// While DNS does not answer nothing is given up.
func TestWithoutDNSMailToTheWorldWaits(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		home := w.Elsewhere(worldDomain)
		w.DNS.Down(true)
		w.bounce()
		w.Sleep(8 * time.Hour)
		if n := w.Waiting("out/" + worldDomain); n != 1 {
			t.Errorf("%d notifications wait", n)
		}
		w.DNS.Down(false)
		w.Sleep(4 * time.Hour)
		if n := len(home.Got()); n != 1 {
			t.Errorf("%d notifications came", n)
		}
	})
}

// Mail to the world is tried less and less often, and given up after five days.
// A notification then is gone without another one.
func TestMailToTheWorldHasAnEnd(t *testing.T) {
	t.Parallel()
	const life = lifeInDays * 24 * time.Hour
	StoryOf(t, 1, func(c *config.Config) { c.Spool.OutLife = life }, func(w *World) {
		w.Account("jansen")
		home := w.Elsewhere(worldDomain)
		w.Net.Silence(home.addr, true)
		w.bounce().Forgive()
		w.Sleep(life - time.Hour)
		if n := w.Waiting("out/" + worldDomain); n != 1 {
			t.Fatalf("%d notifications wait an hour before their end", n)
		}
		w.Sleep(2 * time.Hour)
		if n := w.Waiting("out/" + worldDomain); n != 0 {
			t.Errorf("%d notifications wait after their end", n)
		}
		var gaps []time.Duration
		var last time.Time
		for _, a := range w.journal.allAttempts() {
			if a.queue != "out/"+worldDomain {
				continue
			}
			if !last.IsZero() {
				gaps = append(gaps, a.began.Sub(last).Round(time.Minute))
			}
			last = a.began
		}
		want := []time.Duration{5, 10, 20, 40, 80, 160, 240, 240}
		for i := range want {
			want[i] *= time.Minute
		}
		if len(gaps) < 5*lifeInDays+4 || !slices.Equal(gaps[:len(want)], want) || slices.Max(gaps) > 4*time.Hour+time.Minute {
			t.Errorf("the waits between attempts are %v", gaps)
		}
	})
}

// A notification to a customer of ours goes into his queue, not to the world.
func TestAnAccountOfOursGetsItsNotificationInItsQueue(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Account("pietersen")
		l := w.Write(smallLetter, "nobody@jansen.example")
		l.From = "m1@pietersen.example"
		w.ok("post", w.Post(l))
		w.Sleep(time.Minute)
		got := w.Server("pietersen").Got()
		if len(got) != 1 || got[0].From != "" || got[0].To != l.From {
			t.Errorf("pietersen got %+v", got)
		}
		l.Forgive() // the ledger knows letters by their sender
	})
}

// An account whose route leads back to this server does not make mail go round.
func TestARouteThatLeadsBackHere(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.must("account set jansen --route", setRoute("jansen", nodeAddr.String()))
		l := w.Mail(1)[0]
		w.Sleep(time.Hour)
		if n := w.Waiting("account/jansen"); n != 1 {
			t.Errorf("%d letters wait", n)
		}
		if q := w.Queue("jansen"); !strings.Contains(q.LastWords, "loops back") || q.LastOutcome != spool.OutcomeFailed {
			t.Errorf("the queue says %s, %q", q.LastOutcome, q.LastWords)
		}
		w.must("account set jansen --route", setRoute("jansen", w.Server("jansen").addr.String()))
		w.Retry("account/jansen")
		w.Sleep(time.Minute)
		w.Delivered("jansen", l)
	})
}

func setRoute(login mail.Login, route string) operation {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.SetAccount(ctx, login, wire.AccountPatch{Route: &route})
		return err
	}
}
