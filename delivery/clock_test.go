package delivery

import (
	"testing"
	"time"

	"bsmtpd/spool"
)

// Machine time never goes back: after a wall clock that was a day ahead and was
// put right, it stays a day ahead. Nothing may wait for the wall clock to come
// there.
func TestAClockThatWasADayAheadAndWasPutRight(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.ahead.Store(int64(24 * time.Hour))
		m := w.jansen(&mx{offers: allOffers})
		go w.pusher.NewHousekeeper(w, spool.Reader{R: w.db}).Run(t.Context())
		w.net.silence(jansensServer, true)
		w.mail("jansen", "1\r\n")
		w.pass(time.Minute)
		if q := w.queue("jansen"); q.Failures != 1 || q.Claim != nil || q.Next.Sub(w.now()) != 19*time.Minute {
			t.Fatalf("new mail was not tried at once, or not to be tried again in 20 minutes: %+v", q)
		}
		w.pass(20 * time.Minute)
		if q := w.queue("jansen"); q.Failures != 2 {
			t.Fatalf("the timer did not fire: %+v", q)
		}
		w.net.silence(jansensServer, false)
		w.pass(20 * time.Minute)
		if w.left(jansensQueue, 0); m.bodies() != "1" {
			t.Fatalf("%q arrived", m.bodies())
		}
		w.pass(3 * time.Hour)
		if n := w.metric("delivery_sweeps_total"); n != 1 {
			t.Fatal(n, "sweeps in less than four hours")
		}
		w.pass(time.Hour)
		if n := w.metric("delivery_sweeps_total"); n != 2 {
			t.Fatal(n, "sweeps in more than four hours")
		}
	})
}

func TestAClaimHoldsWhileMachineTimeIsAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.ahead.Store(int64(24 * time.Hour))
		w.jansen(&mx{offers: allOffers, final: slow(25 * time.Minute)})
		id := w.mail("jansen", "1\r\n")
		remove := spool.Act{Action: spool.ActRemove, Items: []spool.Item{{Queue: jansensQueue, ID: id}}, By: "op"}
		for range 12 { // the claim is extended more than once
			w.pass(2 * time.Minute)
			if got := w.act(remove); len(got.Busy) != 1 {
				t.Fatalf("a message on the wire was removed: %+v", got)
			}
		}
		w.pass(10 * time.Minute)
		w.left(jansensQueue, 0)
	}, func(c *Config) { c.DataTimeout = 30 * time.Minute })
}

// The clock leaps while sessions are at work. Their claims are over at once, by
// machine time; they begin nothing new, and the rest is pushed by others.
func TestALeapAheadDuringASession(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: slow(time.Minute)})
		for _, body := range []string{"1\r\n", "2\r\n", "3\r\n"} {
			w.mail("jansen", body)
		}
		w.pass(30 * time.Second)
		w.ahead.Store(int64(time.Hour))
		w.pass(10 * time.Minute)
		w.left(jansensQueue, 0)
		if got := m.bodies(); got != "1 2 3" {
			t.Fatalf("%q arrived", got)
		}
	})
}
