package delivery

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// dueNow fails the test unless a queue with n messages is due at once.
func (w *world) dueNow(n int) {
	w.t.Helper()
	w.left(jansensQueue, n)
	if q := w.queue("jansen"); q.Claim != nil || q.Next == 0 || q.Next > mail.At(time.Now()) {
		w.t.Fatalf("not due: %+v", q)
	}
}

// slow answers the end of each message after a time.
func slow(d time.Duration) func(*mxConn, *arrived) string {
	return func(*mxConn, *arrived) string {
		time.Sleep(d)
		return "250 ok"
	}
}

func TestMailThatTheStoppedSessionHadSeenIsDueAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: []string{"8BITMIME"}, final: slow(5 * time.Second)})
		w.pusher.Pause(true)
		w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n")
		w.pusher.Pause(false)
		w.pass(time.Second)
		w.stop()
		w.dueNow(1)
	})
	story(t, func(t *testing.T, w *world) { // it had not come to the second route
		w.jansen(&mx{offers: []string{"8BITMIME"}, final: slow(5 * time.Second)})
		w.dir.domain("branch.example", "jansen", directory.Route{Host: "192.0.2.20"})
		w.pusher.Pause(true)
		w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n", "a@branch.example")
		w.pusher.Pause(false)
		w.pass(time.Second)
		w.stop()
		w.dueNow(1)
	})
}

func TestStopDuringTheSearchForAServerLeavesTheMailDue(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		w.net.silence(jansensServer, true)
		w.mail("jansen", "1\r\n")
		w.pass(time.Second)
		w.stop()
		w.dueNow(1)
	})
}

func TestStopDuringTheSearchForAServerSaysNothingAboutIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		w.net.silence(jansensServer, true)
		w.mail("jansen", "1\r\n")
		w.pass(45 * time.Minute) // three attempts, of which none found the server
		before := w.queue("jansen")
		w.trigger(jansensQueue, spool.CauseOperator)
		w.pass(time.Second)
		w.stop()
		w.dueNow(1)
		if q := w.queue("jansen"); before.Failures != 3 || q.Failures != 3 || !q.Failing || q.LastAttempt == before.LastAttempt || q.LastWords != before.LastWords {
			t.Fatalf("%+v", q)
		}
	})
}

func TestSessionLingersWhileAnAnswerIsAwaited(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, final: slow(3 * time.Second)})
		w.mail("jansen", "1\r\n")
		w.pass(2 * time.Second)
		w.mail("jansen", "2\r\n")
		w.pass(10 * time.Second)
		if w.left(jansensQueue, 0); m.connections() != 1 {
			t.Fatal(m.connections(), "connections")
		}
	})
}

// lateMail queues a message right after the end of a session was recorded.
type lateMail struct {
	*world
	once sync.Once
}

func (l *lateMail) Finish(ctx context.Context, c spool.Finish) (spool.Finished, error) {
	r, err := l.world.Finish(ctx, c)
	l.once.Do(func() {
		l.mail("jansen", "late\r\n")
		time.Sleep(10 * time.Millisecond) // the hint is taken while the session still counts as running
	})
	return r, err
}

func TestMailBetweenTheEndOfASessionAndItsRecordIsNotForgotten(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		w.pusher.Spool = &lateMail{world: w}
		w.ended = make(chan struct{})
		w.start()
		m := w.jansen(&mx{offers: allOffers})
		w.mail("jansen", "1\r\n")
		w.pass(time.Second)
		if w.left(jansensQueue, 0); m.bodies() != "1 late" {
			t.Fatal(m.bodies())
		}
	})
}

func TestWindowBoundsWhatIsInFlight(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"messages": func(c *Config) { c.WindowMessages = 3 },
		"bytes":    func(c *Config) { c.WindowBytes = 2500 },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				m := w.jansen(&mx{offers: allOffers, final: slow(time.Minute)})
				w.net.latency = time.Second // the commands are seen before the first answer
				w.pusher.Pause(true)
				for range 10 {
					w.mail("jansen", strings.Repeat("x", 998)+"\r\n")
				}
				w.pusher.Pause(false)
				w.pass(30 * time.Second)
				m.mu.Lock()
				var wire *half
				for c := range m.open {
					wire = c.(*memConn).r
				}
				m.mu.Unlock()
				wire.mu.Lock()
				sent := 0
				for _, s := range wire.segments {
					sent += strings.Count(string(s), "BDAT ")
				}
				wire.mu.Unlock()
				if sent != 3 {
					t.Fatal(sent, "messages are in flight")
				}
				w.pass(15 * time.Minute)
				w.left(jansensQueue, 0)
			}, change)
		})
	}
}

func TestSessionDoesNotLingerWhileOthersWaitForItsPlace(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		w.dir.put("pieters", directory.Account{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.20")}})
		m := w.serve("192.0.2.20:25", &mx{offers: allOffers})
		w.mail("jansen", "1\r\n")
		w.mail("pieters", "1\r\n")
		w.pass(4 * crowdedLook)
		if m.bodies() != "1" {
			t.Error("pieters waits while a session has nothing to do")
		}
	}, func(cfg *Config) { cfg.Sessions, cfg.Linger = 1, 10*time.Second })
}
