package delivery

import (
	"io"
	"strings"
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
