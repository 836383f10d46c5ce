package simtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// B1: mail is pushed at once to a server that answers.
func TestMailIsPushedAtOnce(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		letters := w.Mail(3)
		w.Sleep(time.Second)
		w.Delivered("jansen", letters...)
		if took := w.Server("jansen").Got()[0].At.Sub(letters[0].Copies()[0].At); took > 50*time.Millisecond {
			t.Errorf("the first letter took %s from its 250 to the customer's server", took)
		}
	})
}

// B2: what a server that does not answer is to get is kept, for as long as it
// takes, and arrives in the order in which it came.
func TestMailIsKeptInOrder(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		var letters []*Letter
		for range 4 * daysOffline {
			letters = append(letters, w.Mail(2)...)
			w.Sleep(6 * time.Hour)
		}
		if n := w.Waiting("account/jansen"); n != 8*daysOffline {
			t.Fatalf("%d letters wait after %d days", n, daysOffline)
		}
		w.Online("jansen")
		w.Sleep(21 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// B3: nobody logs in; the timer tries every 20 minutes.
func TestTheTimerTriesEveryTwentyMinutes(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(1)
		w.Sleep(2 * time.Hour)
		attempts := w.journal.allAttempts()
		if len(attempts) != 6 {
			t.Errorf("%d attempts in two hours; expected one at once and then one every 20 minutes", len(attempts))
		}
		for i, a := range attempts[1:] {
			if gap := a.began.Sub(attempts[i].began); gap < 20*time.Minute || gap > 20*time.Minute+time.Second {
				t.Errorf("%s between two attempts", gap)
			}
		}
		w.Online("jansen")
		w.Sleep(20*time.Minute + time.Second)
		w.Delivered("jansen", letters...)
		if q := w.Queue("jansen"); q.LastCause != spool.CauseTimer {
			t.Errorf("the letter went for %q", q.LastCause)
		}
	})
}

// forget takes a queue off the schedule behind the node's back.
func (w *World) forget(name string) {
	w.t.Helper()
	q := w.Queue(name)
	db := w.Node().Cluster().Rows()
	key := append([]byte("s/"), scheduleTime(q.Next)...)
	key = append(key, q.Name...)
	if v, err := db.Get(key); err != nil || v == nil {
		w.Fatalf("queue %s has no row in the schedule, %v", q.Name, err)
	}
	b := db.Begin()
	w.ok("delete the row", b.Delete(key))
	w.ok("delete the row", b.Commit())
	w.Note("the schedule row of %s is gone", q.Name)
}

func scheduleTime(at mail.Time) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(at >> (56 - 8*i))
	}
	return b
}

const repairWords = "queues with mail had no next event"

// B24: a schedule row that is lost is found by the watchdog, which looks every
// five minutes between two sweeps, and is counted.
func TestTheWatchdogFindsALostTimer(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.journal.excuse(repairWords)
		w.watch.off = true
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(2)
		w.Sleep(time.Minute)
		w.forget("jansen")
		w.Online("jansen")
		w.Sleep(5*time.Minute + time.Second)
		w.Delivered("jansen", letters...)
		if n := w.Metric("delivery_repaired_total"); n != 1 {
			t.Errorf("%v repairs are counted", n)
		}
		if n := w.Metric("delivery_sweeps_total"); n != 1 {
			t.Errorf("%v sweeps; only that of the start was due", n)
		}
	})
}

// B4: the sweep finds it as well, by itself: here the row goes after the watchdog
// has looked for the last time before the sweep.
func TestTheSweepFindsALostTimer(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.journal.excuse(repairWords)
		w.watch.off = true
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(2)
		w.Sleep(time.Until(w.life.began.Add(4*time.Hour - 2*time.Minute)))
		w.forget("jansen")
		w.Online("jansen")
		w.SleepUntil(5*time.Minute, "the sweep", func() bool { return w.Waiting("account/jansen") == 0 })
		w.Delivered("jansen", letters...)
		if q := w.Queue("jansen"); q.LastCause != spool.CauseSweep {
			t.Errorf("the letters went for %q", q.LastCause)
		}
		if n, repaired := w.Metric("delivery_sweeps_total"), w.Metric("delivery_repaired_total"); n != 2 || repaired != 1 {
			t.Errorf("%v sweeps, %v repairs; expected that of the start, and one that repaired", n, repaired)
		}
	})
}

// B4: a timer that is set to next week, by a clock that was wrong, is no lost row;
// the sweep tries the queue all the same.
func TestTheSweepDoesNotBelieveATimerOfNextWeek(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.watch.off = true
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(2)
		w.Sleep(time.Minute)
		w.postpone("jansen", 7*24*time.Hour)
		w.Online("jansen")
		w.Sleep(time.Hour)
		if n := w.Waiting("account/jansen"); n != 2 {
			t.Fatalf("%d letters wait; the story is not told", n)
		}
		w.Sleep(3*time.Hour + time.Minute)
		w.Delivered("jansen", letters...)
		if n := w.Metric("delivery_swept_total"); n != 1 {
			t.Errorf("%v queues were made due by the sweep", n)
		}
	})
}

// B5: a login is followed by the first byte on the wire within milliseconds.
func TestALoginIsFollowedByThePush(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(5)
		w.Sleep(7 * time.Minute)
		w.Online("jansen")
		began := time.Now()
		w.Login("jansen")
		w.Sleep(time.Second)
		w.Delivered("jansen", letters...)
		visits := w.Server("jansen").Visits()
		if took := visits[len(visits)-1].began.Sub(began); took > 20*time.Millisecond {
			t.Errorf("%s from the login to the connection", took)
		}
		if n := w.Metric("delivery_login_first_byte_seconds_count"); n != 1 {
			t.Errorf("%v logins were measured", n)
		}
	})
}

// B6: a second login within 20 minutes starts nothing and is told as debounced;
// the timer still tries.
func TestASecondLoginIsDebounced(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(1)
		w.Sleep(3 * time.Minute)
		w.Login("jansen") // too early: the line is not up
		w.Sleep(time.Minute)
		w.Logout("jansen")
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(time.Minute)
		w.Delivered("jansen")
		if q := w.Queue("jansen"); q.Debounced != 1 {
			t.Errorf("%d logins are debounced", q.Debounced)
		}
		w.Sleep(20 * time.Minute)
		w.Delivered("jansen", letters...)
		if q := w.Queue("jansen"); q.LastCause != spool.CauseTimer {
			t.Errorf("the letter went for %q", q.LastCause)
		}
		w.Offline("jansen")
		more := w.Mail(1)
		w.Sleep(time.Minute)
		w.Logout("jansen")
		w.Online("jansen")
		w.Login("jansen") // 20 minutes later it counts again
		w.Sleep(time.Second)
		w.Delivered("jansen", append(letters, more...)...)
	})
}

func (w *World) presence(name string) directory.Presence {
	w.t.Helper()
	n := w.Node().Cluster()
	p, err := n.Directory().Presence(mail.Login(name), n.Now(), n.Settings().Limits.SessionLife)
	w.ok("read the presence", err)
	return p
}

// B16: a second session, and a login with another address, are noticed.
func TestADoubleLoginIsNoticed(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Account("pietersen")
		w.Login("jansen")
		w.Login("jansen")
		p := w.presence("jansen")
		if p.Doubles != 1 || !strings.Contains(p.LastDoubleWhat, "another session") {
			t.Errorf("jansen has two sessions: %+v", p)
		}
		w.LoginFrom("pietersen", w.Server("jansen").addr)
		p = w.presence("pietersen")
		if p.Doubles != 1 || !strings.Contains(p.LastDoubleWhat, "not with its fixed address") {
			t.Errorf("pietersen has jansen's address: %+v", p)
		}
	})
}

// B17: Stop and Accounting-On mark a customer offline.
func TestStopAndAccountingOnMarkCustomersOffline(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		names := []string{"jansen", "pietersen", "devries"}
		for _, name := range names {
			w.Account(name)
			w.Login(name)
		}
		w.Sleep(time.Hour)
		w.Logout("jansen")
		online := func() (out []string) {
			for _, name := range names {
				if w.presence(name).Online {
					out = append(out, name)
				}
			}
			return out
		}
		if got := online(); !slices.Equal(got, []string{"pietersen", "devries"}) {
			t.Errorf("online are %v", got)
		}
		w.AccessRestarts()
		if got := online(); got != nil {
			t.Errorf("online after the access server has restarted: %v", got)
		}
		w.Restart()
		w.Login("pietersen")
		if got := online(); !slices.Equal(got, []string{"pietersen"}) {
			t.Errorf("online are %v", got)
		}
	})
}

// B18: a PIX loses messages whose end is spread over two packets, so that no
// server ever gets them; it is recognised, and its customers get all.
func TestMailPassesAPIX(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen").Behave(Manner{PIX: true})
		var letters []*Letter
		for size := range 300 { // the end comes to lie at all places between two packets
			letters = append(letters, w.Write(1460-300+size, "jansen"))
		}
		w.ok("post", w.Post(letters...))
		w.Sleep(10 * time.Minute)
		w.Delivered("jansen", letters...)
		if q := w.Queue("jansen"); !strings.Contains(q.LastBanner, "***") {
			t.Errorf("the banner is %q", q.LastBanner)
		}
	})
}

// A session hangs in a connection that nobody tells to be dead. The customer comes
// back and logs in: his mail does not wait for the hanging session's patience.
func TestALoginWhileASessionHangsInADeadConnection(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{atGreet, atHello, atMail, atData, atBody, atDot} {
		for _, slow := range []bool{false, true} {
			if stage == atData && !slow {
				continue // BDAT is said instead
			}
			t.Run(fmt.Sprintf("%s slow=%v", stage, slow), func(t *testing.T) {
				t.Parallel()
				Story(t, func(w *World) {
					s := w.Account("jansen")
					s.Behave(Manner{Hang: stage, Slow: slow})
					letters := w.Mail(3)
					w.Sleep(20 * time.Second)
					w.Delivered("jansen")
					s.Behave(Manner{Slow: slow})
					w.Offline("jansen") // and what was said is gone with the line
					w.Sleep(10 * time.Second)
					w.Online("jansen")
					w.Login("jansen")
					w.Sleep(31 * time.Second)
					w.Delivered("jansen", letters...)
				})
			})
		}
	}
}

// The same login does not break a push that is slow and goes on.
func TestALoginDoesNotBreakASlowPush(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		w.Net.SetLine(s.addr, Line{Latency: 150 * time.Millisecond, Rate: 1200})
		l := w.Write(500_000, "jansen")
		w.ok("post", w.Post(l))
		for range 6 {
			w.Sleep(time.Minute)
			w.must("queue retry", func(ctx context.Context, c *client.Client) error {
				_, err := c.RetryQueue(ctx, "account/jansen")
				return err
			})
			w.Login("jansen")
		}
		w.Sleep(5 * time.Minute)
		w.Delivered("jansen", l)
		if n := len(s.Visits()); n != 1 {
			t.Errorf("%d connections were made", n)
		}
	})
}

// An operator removes mail while it is being pushed: what he was told is removed
// is not delivered afterwards.
func TestRemovingMailDuringItsPush(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		w.Net.SetLine(s.addr, Line{Latency: 100 * time.Millisecond, Rate: 4000})
		w.Offline("jansen")
		var letters []*Letter
		for range 20 {
			letters = append(letters, w.Write(5000, "jansen"))
		}
		w.ok("post", w.Post(letters...))
		w.Sleep(time.Minute)
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(6 * time.Second)
		if n := len(s.Got()); n == 0 || n == 20 {
			t.Fatalf("%d letters have come; the push should be at work", n)
		}
		var ids []mail.ID
		for _, l := range letters {
			ids = append(ids, l.Copies()[0].ID)
		}
		w.Remove(ids...)
		got := len(s.Got())
		w.Sleep(time.Hour)
		if n := len(s.Got()); n != got {
			t.Errorf("%d letters came after they were removed", n-got)
		}
		if n := w.Waiting("account/jansen"); n != 0 {
			t.Errorf("%d letters are still queued", n)
		}
	})
}

// postpone sets a queue's timer anew behind the node's back.
func (w *World) postpone(name string, by time.Duration) {
	w.t.Helper()
	q := w.Queue(name)
	db := w.Node().Cluster().Rows()
	b := db.Begin()
	row := func(at mail.Time) []byte { return append(append([]byte("s/"), scheduleTime(at)...), q.Name...) }
	w.ok("move the row", b.Delete(row(q.Next)))
	q.Next = q.Next.Add(by)
	w.ok("move the row", b.Set(row(q.Next), []byte{byte(q.Cause)}))
	w.ok("move the row", b.Set([]byte("q/"+string(q.Name)), kv.Encode(&q)))
	w.ok("move the row", b.Commit())
	w.Note("the timer of %s is set to %s", q.Name, day(q.Next.Std()))
}
