package delivery

import (
	"context"
	"testing"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

func TestAQueueLeftByAKilledSessionIsPushedAtOnce(t *testing.T) {
	for node, want := range map[string]string{"n1": "1", "n2": ""} { // another node's session may be alive
		story(t, func(t *testing.T, w *world) {
			m := w.jansen(&mx{offers: allOffers})
			w.stop()
			w.mail("jansen", "1\r\n")
			claim := spool.Claim{Queue: jansensQueue, Node: node, Session: 7, Until: mail.At(time.Now().Add(10 * time.Minute)), Cause: spool.CauseNew}
			if r, err := w.Claim(context.Background(), claim); err != nil || r.Denial != spool.Granted {
				t.Fatal(r, err)
			}
			w.ended = make(chan struct{})
			w.start()
			w.pass(time.Second)
			if got := m.bodies(); got != want {
				t.Fatalf("claimed by %s: %q was pushed, want %q", node, got, want)
			}
			w.pass(10 * time.Minute)
			w.left(jansensQueue, 0)
		})
	}
}
