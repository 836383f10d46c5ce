package delivery

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bsmtpd/spool"
)

// shortBody ends before its time.
type shortBody struct {
	io.Reader
	io.Closer
}

// TestBodyThatEndsEarlyCostsOnlyItsOwnMessage: those that were sent before it and are
// not answered yet must not be sent again.
func TestBodyThatEndsEarlyCostsOnlyItsOwnMessage(t *testing.T) {
	for _, name := range []string{"chunking", "pipelining", "plain"} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.stop()
				rows := &shortRows{Rows: w.pusher.Rows}
				w.pusher.Rows = rows
				w.ended = make(chan struct{})
				w.start()
				w.net.latency = time.Second
				m := w.jansen(&mx{offers: modes[name].offers})
				w.pusher.Pause(true)
				w.mail("jansen", "1\r\n")
				w.mail("jansen", "2\r\n")
				bad := w.mail("jansen", strings.Repeat("x", 300_000)+"\r\n")
				w.mail("jansen", "4\r\n")
				rows.short = w.messages(jansensQueue)[2].Body
				w.pusher.Pause(false)
				w.pass(5 * time.Minute)
				left := w.left(jansensQueue, 2)
				if m.bodies() != "1 2" || left[0].ID != bad || !strings.Contains(left[0].To[0].Last.Text, "ends") {
					t.Fatalf("%s %+v", m.bodies(), left)
				}
				if n := w.metric("delivery_duplicates_possible_total"); n != 0 {
					t.Fatal(n, "may arrive twice")
				}
			})
		})
	}
}

// shortRows lack the end of one body.
type shortRows struct {
	Rows
	short spool.BodyID
}

func (s *shortRows) Body(id spool.BodyID) (io.ReadCloser, error) {
	r, err := s.Rows.Body(id)
	if err == nil && id == s.short {
		return shortBody{io.LimitReader(r, 100_000), r}, nil
	}
	return r, err
}

// countedRows count the bodies that are read.
type countedRows struct {
	Rows
	bodies atomic.Int64
}

func (c *countedRows) Small(id spool.BodyID, size int64) ([]byte, error) {
	c.bodies.Add(1)
	return c.Rows.Small(id, size)
}

func TestBodiesAreReadAheadOnceAConnectionStands(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		rows := &countedRows{Rows: w.pusher.Rows}
		w.pusher.Rows = rows
		w.ended = make(chan struct{})
		w.start()
		m := w.jansen(&mx{offers: without("CHUNKING"), final: slow(10 * time.Second)})
		w.net.silence(jansensServer, true)
		w.pusher.Pause(true)
		for range 50 {
			w.mail("jansen", strings.Repeat("x", 20_000)+"\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Second)
		if n := rows.bodies.Load(); n != 0 {
			t.Fatal(n, "bodies were read for a server that does not answer")
		}
		w.net.silence(jansensServer, false)
		w.pass(25 * time.Minute) // 20 of them until the next attempt
		if n := int(rows.bodies.Load()) - len(m.got()); n < 5 || n*20_000 > aheadBytes+2*20_000 {
			t.Fatal(n, "bodies were read before the message before them was answered")
		}
		w.pass(20 * time.Minute)
		if w.left(jansensQueue, 0); rows.bodies.Load() > 55 {
			t.Fatal(rows.bodies.Load(), "bodies were read")
		}
	})
}

// TestWhatWasReadAheadIsNotBegunAfterAStop: an operator's change waits for the session.
func TestWhatWasReadAheadIsNotBegunAfterAStop(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: slow(10 * time.Second)})
		w.pusher.Pause(true)
		for range 30 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(5 * time.Second)
		w.stop()
		if w.dueNow(29); m.bodies() != "x" {
			t.Fatal(m.bodies())
		}
	})
}
