package simtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/config"
)

// The connection breaks after the end of a message and before the reply. The
// message was kept; it is sent again, and counted as one that may be there twice.
func TestAMessageThatMayBeThereTwiceIsCounted(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		s.Behave(Manner{Slow: true, Drop: atKept})
		l := w.Mail(1)[0]
		w.Sleep(time.Second)
		s.Behave(Manner{Slow: true})
		w.Sleep(21 * time.Minute)
		w.Delivered("jansen", l, l)
		if n := w.Metric("delivery_duplicates_possible_total"); n != 1 {
			t.Errorf("%v messages are counted that may be there twice", n)
		}
	})
}

// A server that greylists gets its mail when the timer comes round.
func TestAServerThatGreylistsGetsItsMail(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen").Behave(Manner{Grey: 5 * time.Minute})
		letters := w.Mail(3)
		w.Sleep(19 * time.Minute)
		w.Delivered("jansen")
		w.Sleep(2 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// One message that its server cannot swallow does not keep the others from
// arriving.
func TestOnePoisonedMessageDoesNotBlockTheOthers(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(5)
		s.choke(letters[1].Number)
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(time.Hour)
		got := s.Letters()
		if len(got) != 4 || w.Waiting("account/jansen") != 1 {
			t.Errorf("letters %v came, %d wait", got, w.Waiting("account/jansen"))
		}
		s.choke(0)
		w.Sleep(21 * time.Minute)
		if n := w.Waiting("account/jansen"); n != 0 {
			t.Errorf("%d letters wait", n)
		}
	})
}

// A large message over a modem takes an hour, and no watchdog ends it.
func TestALargeMessagePassesASlowLine(t *testing.T) {
	t.Parallel()
	for _, m := range []Manner{{}, {Slow: true}} {
		t.Run(fmt.Sprintf("slow=%v", m.Slow), func(t *testing.T) {
			t.Parallel()
			Story(t, func(w *World) {
				s := w.Account("jansen")
				s.Behave(m)
				w.Net.SetLine(s.addr, Line{Latency: 150 * time.Millisecond, Rate: 1200}) // 9600 bit/s
				l := w.Write(3_000_000, "jansen")
				w.ok("post", w.Post(l))
				if !l.Taken() {
					t.Fatalf("the letter was not taken: %s", l.Said())
				}
				w.Sleep(55 * time.Minute)
				w.Delivered("jansen", l)
			})
		})
	}
}

// B21: over one connection, a queue is drained as fast as the line can carry it,
// however long the way: here 1 Mbit/s and a round trip of 200 ms.
func TestADrainIsBoundByTheLineAndNotByItsLength(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		const rate = 125_000
		w.Net.SetLine(s.addr, Line{Latency: 100 * time.Millisecond, Rate: rate})
		w.Offline("jansen")
		var letters []*Letter
		bytes := 0
		for range 400 {
			l := w.Write(4096, "jansen")
			bytes += len(l.Text)
			letters = append(letters, l)
		}
		w.ok("post", w.Post(letters...))
		w.Online("jansen")
		began := time.Now()
		w.Login("jansen")
		w.SleepUntil(time.Minute, "the queue is empty", func() bool { return len(s.Got()) == len(letters) })
		took := time.Since(began)
		if share := float64(bytes) / rate / took.Seconds(); share < 0.9 {
			t.Errorf("%d bytes took %s: %.0f %% of the line", bytes, took, 100*share)
		}
		w.Sleep(time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// A node that loses its power amid a push goes on with it when it is back, and does
// not wait until the session that has died is given up.
func TestAPushGoesOnAfterAPowerFailure(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		w.Net.SetLine(s.addr, Line{Latency: 20 * time.Millisecond, Rate: 5000})
		w.Offline("jansen")
		var letters []*Letter
		for range 10 {
			letters = append(letters, w.Write(5000, "jansen"))
		}
		w.ok("post", w.Post(letters...))
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(5 * time.Second)
		if n := len(s.Got()); n == 0 || n == len(letters) {
			t.Fatalf("%d letters had come; the push should have been at work", n)
		}
		w.Restart()
		w.Sleep(30 * time.Second)
		if n := w.Waiting("account/jansen"); n != 0 {
			t.Errorf("%d letters still wait half a minute after the node is back", n)
		}
	})
}

// Two domains of one account with routes of their own: each server gets its mail,
// also while the other one is away.
func TestTwoRoutesOfOneAccount(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		other := w.Elsewhere("shop.example")
		w.must("domain add shop.example", func(ctx context.Context, c *client.Client) error {
			_, err := c.AddDomain(ctx, wire.Domain{Name: "shop.example", Login: "jansen", Route: other.addr.String()})
			return err
		})
		w.Offline("jansen")
		l := w.Write(smallLetter, "info@jansen.example", "sales@shop.example")
		w.ok("post", w.Post(l))
		w.Sleep(time.Minute)
		if got := other.Letters(); len(got) != 1 || got[0] != l.Number {
			t.Errorf("the shop's server got %v", got)
		}
		w.Delivered("jansen")
		w.Online("jansen")
		w.Sleep(21 * time.Minute)
		w.Delivered("jansen", l)
	})
}

// B22: after an outage many customers come online within a few seconds. All get
// their mail soon, and there are never more sessions than allowed.
func TestALoginStormIsServed(t *testing.T) {
	t.Parallel()
	const customers, sessions = 120, 10
	StoryOf(t, 1, func(c *config.Config) {
		c.Delivery.Sessions = sessions
		c.Delivery.SessionsPerNetwork = 0
	}, func(w *World) {
		most := 0
		for i := range customers {
			name := fmt.Sprintf("c%d", i)
			s := w.Account(name)
			w.Net.SetLine(s.addr, Line{Latency: 100 * time.Millisecond, Rate: 4000})
			w.Offline(name)
			w.Mail(1, name)
		}
		w.Sleep(30 * time.Minute)
		began := time.Now()
		for i := range customers {
			name := fmt.Sprintf("c%d", i)
			w.Online(name)
			w.Login(name)
		}
		w.SleepUntil(2*time.Minute, "all have their mail", func() bool {
			most = max(most, w.life.machine.Open())
			for i := range customers {
				if len(w.Server(fmt.Sprintf("c%d", i)).Got()) == 0 {
					return false
				}
			}
			return true
		})
		if most > sessions {
			t.Errorf("%d connections at one time", most)
		}
		t.Logf("%d customers after %s", customers, time.Since(began))
	})
}

// A held queue keeps its mail until the hold's end, which comes by itself.
func TestAHoldEndsByItself(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		until := time.Now().Add(3 * time.Hour)
		w.must("queue hold", func(ctx context.Context, c *client.Client) error {
			return c.HoldQueue(ctx, "account/jansen", wire.QueueHold{Reason: "a story", Until: until})
		})
		letters := w.Mail(2)
		w.Login("jansen")
		w.Sleep(time.Until(until) - time.Minute)
		w.Delivered("jansen")
		w.Sleep(2 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// Delivery of everything is suspended over a night; in the morning it goes on.
func TestASuspensionIsResumed(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.watch.off = true
		w.Account("jansen")
		w.must("delivery suspend", func(ctx context.Context, c *client.Client) error {
			return c.Suspend(ctx, wire.Suspension{Scope: "all", Reason: "a story"})
		})
		letters := w.Mail(2)
		w.Login("jansen")
		w.Sleep(8 * time.Hour)
		w.Delivered("jansen")
		w.Restart()
		w.Sleep(time.Hour)
		w.Delivered("jansen")
		w.must("delivery resume", func(ctx context.Context, c *client.Client) error { return c.Resume(ctx, "all") })
		w.Sleep(21 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// A limit for sessions that is shorter than connecting takes does not make a server
// that is away be tried without end; and with one that is there, every session
// brings something.
func TestAShortSessionLimit(t *testing.T) {
	t.Parallel()
	StoryOf(t, 1, func(c *config.Config) { c.Delivery.SessionLimit = time.Second }, func(w *World) {
		s := w.Account("jansen")
		w.Net.SetLine(s.addr, Line{Latency: 900 * time.Millisecond, Rate: 3000})
		w.Offline("jansen")
		letters := w.Mail(20)
		w.Sleep(time.Hour)
		if n := len(w.journal.allAttempts()); n > 4 {
			t.Errorf("%d attempts in an hour", n)
		}
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(10 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// What an operator took out can be brought back, also after a power failure, and
// goes out at once: here a session has just begun, and may have passed its place.
func TestRemovedMailIsBroughtBack(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(3)
		id := letters[1].Copies()[0].ID
		w.Remove(id)
		w.Restart()
		w.Online("jansen")
		w.Login("jansen")
		w.Requeue(id)
		w.Sleep(time.Second)
		got := w.Server("jansen").Letters()
		slices.Sort(got)
		if !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("the letters %v came", got)
		}
	})
}
