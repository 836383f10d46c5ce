package delivery

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// A message that does not decode is passed over, and set aside at the end.
func TestADamagedMessageLeavesItsQueue(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		m := w.jansen(&mx{offers: allOffers})
		bad := w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n")
		tx := w.db.Begin()
		if err := tx.Set(append([]byte("m/"+jansensQueue+"\x00"), binary.BigEndian.AppendUint64(nil, uint64(bad))...), []byte{0xff}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		w.ended = make(chan struct{})
		w.start()
		w.pass(time.Minute)
		if w.left(jansensQueue, 0); m.bodies() != "2" {
			t.Errorf("%q arrived", m.bodies())
		}
		if q := w.queue("jansen"); q.Messages != 0 || q.Next != 0 {
			t.Errorf("the queue still counts it: %+v", q)
		}
		n := 0
		var err error
		for range (spool.Reader{R: w.db}).Aside("", &err) {
			n++
		}
		if n != 1 || err != nil {
			t.Errorf("%d rows were set aside, %v", n, err)
		}
	})
}

// An account whose domains go to more servers than a session notes at once: the
// last must not wait behind the first, which are down for ever.
func TestManyRoutesOfOneAccountAreAllTried(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		const dead, alive = 40, 3
		w.dir.put("jansen", directory.Account{})
		servers := map[int]*mx{}
		for i := 1; i <= dead+alive; i++ {
			name := mail.Domain(fmt.Sprintf("d%d.example", i))
			addr := fmt.Sprintf("192.0.2.%d", i)
			w.dir.domain(name, "jansen", directory.Route{Host: addr})
			if i > dead {
				servers[i] = w.serve(addr+":25", &mx{offers: allOffers})
			} else {
				w.net.silence(addr+":25", true)
			}
		}
		for i := 1; i <= dead+alive; i++ {
			w.mail("jansen", fmt.Sprintf("%d\r\n", i), fmt.Sprintf("info@d%d.example", i))
		}
		w.pass(45 * time.Minute)
		for i, m := range servers {
			if got := m.bodies(); got != fmt.Sprint(i) {
				t.Errorf("server %d got %q", i, got)
			}
		}
		w.left(jansensQueue, dead)
	})
}
