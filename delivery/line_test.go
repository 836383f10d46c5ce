package delivery

import (
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/spool"
)

// line is what all connections of a made-up network share in one direction: so many
// bytes go through it in a second.
type line struct {
	bytesPerSecond int

	mu   sync.Mutex // guards free
	free time.Time  // when it has carried all that was given to it
}

// carry is when n bytes that are sent now have left.
func (l *line) carry(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.bytesPerSecond))
	return l.free
}

// narrow makes the network a line of so many bits per second, both ways.
func (n *memNet) narrow(bitsPerSecond int, roundTrip time.Duration) {
	n.latency = roundTrip / 2
	n.up, n.down = &line{bytesPerSecond: bitsPerSecond / 8}, &line{bytesPerSecond: bitsPerSecond / 8}
}

// drain queues n messages of a size, has them pushed, and gives the time from the
// first dial to the last message that left the queue.
func (w *world) drain(n, size int) time.Duration {
	w.t.Helper()
	body := strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64)
	w.pusher.Pause(true)
	for range n {
		w.mail("jansen", body)
	}
	w.pusher.Pause(false)
	began := time.Now()
	for w.queue("jansen").Messages > 0 {
		w.pass(10 * time.Millisecond)
		if time.Since(began) > 24*time.Hour {
			w.t.Fatal("it takes for ever")
		}
	}
	return time.Since(began)
}

// TestDrainFillsTheLine: messages of 4 KiB over 1 Mbit/s with a round trip of 200 ms.
// What is counted is the bodies alone; commands and answers are some 4 %.
func TestDrainFillsTheLine(t *testing.T) {
	const n, size, bits = 500, 4096, 1_000_000
	for _, tc := range []struct {
		name        string
		offers      []string
		connections int
		least, most float64
	}{
		{"chunking, one connection", allOffers, 1, 0.90, 1},
		{"pipelining, one connection", without("CHUNKING"), 1, 0.13, 0.15},
		{"pipelining, four connections", without("CHUNKING"), 4, 0.50, 0.60},
		{"pipelining, ten connections", without("CHUNKING"), 10, 0.85, 1},
		{"no extension, ten connections", []string{"8BITMIME"}, 10, 0.30, 0.45},
	} {
		t.Run(tc.name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.net.narrow(bits, 200*time.Millisecond)
				m := w.jansen(&mx{offers: tc.offers})
				took := w.drain(n, size)
				use := float64(n*size*8) / bits / took.Seconds()
				t.Logf("%.1f %% of the line, %s", 100*use, took)
				if use < tc.least || use > tc.most {
					t.Errorf("%.1f %% of the line was used", 100*use)
				}
				if got := m.connections(); got != tc.connections || len(m.got()) != n {
					t.Errorf("%d messages over %d connections", len(m.got()), got)
				}
			}, func(c *Config) { c.ConnectionsPerAccount = tc.connections })
		})
	}
}

// TestASlowLineOutlastsTheClaim: a drain over 33.6 kbit/s takes longer than the life
// of a claim, and answers come minutes after their messages were written.
func TestASlowLineOutlastsTheClaim(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.net.narrow(33_600, 300*time.Millisecond)
		m := w.jansen(&mx{offers: allOffers})
		took := w.drain(200, 20_000)
		if took < 15*time.Minute || took > 17*time.Minute || len(m.got()) != 200 || m.connections() != 1 {
			t.Errorf("%s, %d messages over %d connections", took, len(m.got()), m.connections())
		}
		w.pass(time.Second)
		if n := w.metric("delivery_sessions_total"); n != 1 || w.queue("jansen").LastOutcome != spool.OutcomeDone {
			t.Errorf("%v sessions; %+v", n, w.queue("jansen"))
		}
	})
}
