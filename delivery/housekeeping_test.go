package delivery

import (
	"strings"
	"testing"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

func TestHousekeeping(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.net.silence(jansensServer, true)
		w.mail("jansen", "x\r\n")
		w.pass(time.Minute)
		w.stop() // the planner is gone; the housekeeper alone brings the queue back
		keeper := w.pusher.NewHousekeeper(w, spool.Reader{R: w.db})
		ctx := t.Context()
		go keeper.Run(ctx)
		w.pass(time.Second)
		if w.metric("delivery_sweeps_total") != 1 {
			t.Fatal("a node that never swept sweeps at once")
		}
		q := w.queue("jansen")
		if q.Next > mail.At(time.Now()) || q.Cause != spool.CauseSweep {
			t.Fatalf("%+v", q)
		}
		w.pass(4*time.Hour + time.Minute)
		if n := w.metric("delivery_sweeps_total"); n != 2 {
			t.Fatal(n, "sweeps")
		}
		keeper.Active(false)
		w.pass(8 * time.Hour)
		if n := w.metric("delivery_sweeps_total"); n != 2 {
			t.Fatal(n, "sweeps while another node keeps house")
		}
		w.net.silence(jansensServer, false)
		w.ended = make(chan struct{})
		w.start()
		w.pass(time.Second)
		if w.left(jansensQueue, 0); len(m.got()) != 1 {
			t.Fatal("the swept queue was not pushed")
		}
	})
}

// TestLostScheduleRowIsRepaired: the timer's row is removed by a fault.
func TestLostScheduleRowIsRepaired(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		go w.pusher.NewHousekeeper(w, spool.Reader{R: w.db}).Run(t.Context())
		w.net.silence(jansensServer, true)
		w.mail("jansen", "x\r\n")
		w.pass(time.Minute)
		b := w.db.Begin()
		var err error
		var keys [][]byte
		for k := range b.Scan([]byte("s"), []byte("t"), &err) {
			if strings.Contains(string(k), "account/jansen") {
				keys = append(keys, append([]byte(nil), k...))
			}
		}
		for _, k := range keys {
			b.Delete(k)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if n, _ := (spool.Reader{R: w.db}).WithoutNext(mail.At(time.Now())); n != 1 {
			t.Fatal("the row is still there", keys)
		}
		w.net.silence(jansensServer, false)
		w.pass(6 * time.Minute)
		w.left(jansensQueue, 0)
		if n := w.metric("delivery_repaired_total"); n != 1 || len(m.got()) != 1 {
			t.Fatal(n)
		}
	})
}
