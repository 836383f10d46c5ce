package delivery

import (
	"strings"
	"testing"
	"time"
)

// fly lets a window work on a line for a time, with messages of a size, and gives
// the bytes that were answered. The line carries rate bytes in a second.
func fly(w *window, now *time.Time, took time.Duration, rate float64, roundTrip time.Duration, size int64) (carried int64) {
	var answers []time.Time // when each job in flight is answered
	free, end := *now, now.Add(took)
	for now.Before(end) {
		for !w.full(len(answers), int64(len(answers))*size) {
			if free.Before(*now) {
				free = *now
			}
			free = free.Add(time.Duration(float64(size) / rate * float64(time.Second)))
			answers = append(answers, free.Add(roundTrip))
		}
		*now = answers[0]
		answers = answers[1:]
		w.answered(*now, size)
		carried += size
	}
	return carried
}

func TestWindowIsAsLargeAsTheLineIsLong(t *testing.T) {
	const mbit = 1_000_000 / 8
	for _, tc := range []struct {
		name        string
		rate        float64
		roundTrip   time.Duration
		size        int64
		use         float64 // least part of the line
		least, most int64
	}{
		{"33.6 kbit/s", 4200, 300 * time.Millisecond, 4096, 0.99, 64 << 10, 128 << 10},
		{"1 Mbit/s, 200 ms", mbit, 200 * time.Millisecond, 4096, 0.99, 64 << 10, 128 << 10},
		{"8 Mbit/s, 200 ms", 8 * mbit, 200 * time.Millisecond, 4096, 0.97, 256 << 10, 512 << 10},
		{"30 Mbit/s, 200 ms", 30 * mbit, 200 * time.Millisecond, 4096, 0.95, 1 << 20, 1 << 20},
		{"1 Mbit/s, 200 ms, large messages", mbit, 200 * time.Millisecond, 700_000, 0.99, 64 << 10, 128 << 10},
		{"a server that takes 100 ms for each", 40_960, time.Millisecond, 4096, 0.99, 64 << 10, 128 << 10},
	} {
		w, now := newWindow(1<<20), time.Unix(0, 0)
		carried := fly(&w, &now, 10*time.Minute, tc.rate, tc.roundTrip, tc.size)
		use := float64(carried) / tc.rate / now.Sub(time.Unix(0, 0)).Seconds()
		if w.size < tc.least || w.size > tc.most || use < tc.use {
			t.Errorf("%s: a window of %d bytes, %.1f %% of the line", tc.name, w.size, 100*use)
		}
	}
}

func TestWindowGrowsWhenTheLineBecomesFaster(t *testing.T) {
	w, now := newWindow(1<<20), time.Unix(0, 0)
	fly(&w, &now, time.Minute, 125_000, 200*time.Millisecond, 4096)
	before := w.size
	fly(&w, &now, time.Minute, 4_000_000, 200*time.Millisecond, 4096)
	if before > 128<<10 || w.size != 1<<20 {
		t.Errorf("%d bytes, then %d", before, w.size)
	}
}

// TestALostConnectionPutsFewMessagesInDoubt: a server that works on a second for each.
func TestALostConnectionPutsFewMessagesInDoubt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers, final: func(c *mxConn, _ *arrived) string {
			if time.Sleep(time.Second); c.count == 3 {
				return "drop"
			}
			return "250 ok"
		}})
		w.pusher.Pause(true)
		for range 90 {
			w.mail("jansen", strings.Repeat("x", 4094)+"\r\n")
		}
		w.pusher.Pause(false)
		w.pass(5 * time.Second)
		if n := w.metric("delivery_duplicates_possible_total"); n < 10 || n > 17 {
			t.Fatal(n, "messages may arrive twice")
		}
	})
}
