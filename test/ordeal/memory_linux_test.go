package ordeal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cage is a control group with little memory; the test skips where none can be made.
func cage(t testing.TB, bytes int64) (procs string) {
	t.Helper()
	name := fmt.Sprintf("bsmtpd-ordeal-%d", os.Getpid())
	own := func(controller string) string {
		b, _ := os.ReadFile("/proc/self/cgroup")
		for line := range strings.Lines(string(b)) {
			if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == controller {
				return f[2]
			}
		}
		return "/"
	}
	for _, v := range []struct{ dir, limit string }{
		{"/sys/fs/cgroup/memory" + own("memory"), "memory.limit_in_bytes"},
		{"/sys/fs/cgroup" + own(""), "memory.max"},
	} {
		dir := filepath.Join(v.dir, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for range 50 { // it is empty a moment after its processes have ended
				if os.Remove(dir) == nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		if os.WriteFile(filepath.Join(dir, v.limit), fmt.Append(nil, bytes), 0o644) == nil {
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	t.Skip("no control group with a limit of memory can be made here")
	return ""
}

// TestWithLittleMemoryItRefusesAndGoesOn has many large messages come in at once, with
// mail queued, and less memory than the settings would use.
func TestWithLittleMemoryItRefusesAndGoesOn(t *testing.T) {
	t.Parallel()
	const queued, crowd, large = 3000, 200, 5 << 20
	procs := cage(t, 256<<20)
	s := newServer(t, filepath.Join(t.TempDir(), "data"), settings{"smtpd.max_body_memory": "24MiB", "node.store.cache_size": "16MiB",
		"node.store.memtable_size": "8MiB", "node.raft.snapshot_bytes": "64MiB", "node.log.level": "warn"})
	s.wrap = []string{"sh", "-c", `echo $$ >"$0"; exec "$@"`, procs}
	s.env = []string{"GOMEMLIMIT=96MiB"}
	s.excused = []string{"a message could not be stored"}
	s.start()
	led := newLedger()
	customers := newCustomers(t, s, led, 4)
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: func(r *rand.Rand) int { return 1 << 10 }}
	in.send(6)
	until(t, "much mail is queued", func() bool { return led.acked() >= queued })
	in.end()
	now, most := s.memory()
	t.Logf("%d queued; memory %d MiB, at most %d", led.acked(), now>>20, most>>20)

	// All at once, each in slow pieces, so that all are under way together.
	var wg sync.WaitGroup
	for i := range crowd {
		r := chance(uint64(2000 + i))
		wg.Go(func() {
			m := &letter{n: int(in.next.Add(1)), to: []string{fmt.Sprintf("info@c%d.example", i%4)}}
			m.body = led.compose(r, m.n, large, m.to)
			conn, _ := enter(s.smtp)
			if conn == nil {
				led.answer(m.n, "")
				return
			}
			defer conn.Close()
			in.slowly(conn, m)
		})
	}
	wg.Wait()
	now, most = s.memory()
	t.Logf("after %d times %d MiB: memory %d MiB, at most %d, %v", crowd, large>>20, now>>20, most>>20, led.said())
	if !s.alive() {
		t.Fatalf("the server has ended: %v", <-s.gone)
	}
	for code, n := range led.said() {
		if n > 0 && code != "250 2.0.0" && code != "452 4.3.1" && code != "451 4.3.0" && code != "451 4.3.2" {
			t.Errorf("%d messages were answered %q", n, code)
		}
	}
	for _, c := range customers {
		c.on(t)
	}
	in.send(3)
	led.more(t, 100, "when the crowd has gone")
	in.end()
	s.drain()
	now, most = s.memory()
	t.Logf("drained: memory %d MiB, at most %d", now>>20, most>>20)
	s.stop()
	led.audit(t, s)
}

// slowly sends one message in pieces with pauses.
func (l *load) slowly(c *talk, m *letter) {
	for _, line := range []string{"MAIL FROM:<anna@pietersen.example>\r\n", "RCPT TO:<" + m.to[0] + ">\r\n", "DATA\r\n"} {
		c.say(line)
		if got := c.reply(); !strings.HasPrefix(got, "2") && !strings.HasPrefix(got, "354") {
			l.ledger.answer(m.n, got)
			return
		}
	}
	wire := stuffed(m.body)
	for len(wire) > 0 {
		n := min(len(wire), 200<<10)
		c.say(string(wire[:n]))
		wire = wire[n:]
		time.Sleep(20 * time.Millisecond)
	}
	c.say(".\r\n")
	l.ledger.answer(m.n, c.reply())
}
