package delivery

import (
	"fmt"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
)

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
