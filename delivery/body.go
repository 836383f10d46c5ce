package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"golang.org/x/time/rate"
)

// smallBody is the largest body that is read into memory before MAIL is said, so
// that a body that cannot be read costs no connection.
const smallBody = 64 << 10

// limitBurst is the most that the bandwidth limit lets through at once; at the
// same time the piece in which a limited body is written.
const limitBurst = 16 << 10

// stuffer makes the lines of a body fit for DATA: a dot at the start of a line is
// doubled (RFC 5321 section 4.5.2). Lines end in CRLF; only the last one may lack
// it, if it came in by BDAT, and gets it.
type stuffer struct {
	w   io.Writer
	mid bool // not at the start of a line
	cr  bool // the last byte was CR
}

var dotdot = []byte("..")

func (s *stuffer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if !s.mid && p[0] == '.' {
			if _, err := s.w.Write(dotdot); err != nil {
				return 0, err
			}
			s.mid, s.cr, p = true, false, p[1:]
			continue
		}
		end := len(p)
		if i := dotAfterLine(p); i >= 0 {
			end = i
		}
		if _, err := s.w.Write(p[:end]); err != nil {
			return 0, err
		}
		s.mid, s.cr = p[end-1] != '\n', p[end-1] == '\r'
		p = p[end:]
	}
	return n, nil
}

// dotAfterLine is the place of the first dot that begins a line after the first.
func dotAfterLine(p []byte) int {
	if i := bytes.Index(p, []byte("\n.")); i >= 0 {
		return i + 1
	}
	return -1
}

// end writes the end of data.
func (s *stuffer) end() error {
	tail := ".\r\n"
	switch {
	case s.mid && s.cr:
		tail = "\n.\r\n"
	case s.mid:
		tail = "\r\n.\r\n"
	}
	_, err := io.WriteString(s.w, tail)
	return err
}

// tailer keeps the last bytes back, so that the end of data and what stands
// before it go out in one write and, as far as we can do, one segment (B18).
type tailer struct {
	w    io.Writer
	held []byte
}

const (
	tailKeep = 512 // fits into any segment
	tailMost = 8 << 10
)

func (t *tailer) Write(p []byte) (int, error) {
	t.held = append(t.held, p...)
	if len(t.held) <= tailMost {
		return len(p), nil
	}
	cut := len(t.held) - tailKeep
	if _, err := t.w.Write(t.held[:cut]); err != nil {
		return 0, err
	}
	t.held = append(t.held[:0], t.held[cut:]...)
	return len(p), nil
}

// finish writes all but the last bytes, pauses, and writes these.
func (t *tailer) finish(pause func() error) error {
	if cut := len(t.held) - tailKeep; cut > 0 {
		if _, err := t.w.Write(t.held[:cut]); err != nil {
			return err
		}
		t.held = t.held[cut:]
	}
	if err := pause(); err != nil {
		return err
	}
	_, err := t.w.Write(t.held)
	return err
}

// copyBody writes exactly size bytes of r to w, under the bandwidth limit. last
// is called before the last piece is written.
func copyBody(ctx context.Context, w io.Writer, r io.Reader, size int64, limiter *rate.Limiter, last func()) error {
	piece := make([]byte, min(size, smallBody))
	if limiter != nil {
		piece = piece[:min(len(piece), limitBurst)]
	}
	for size > 0 {
		n := min(int64(len(piece)), size)
		if _, err := io.ReadFull(r, piece[:n]); err != nil {
			return &unreadable{fmt.Errorf("the stored body ends %d bytes early: %w", size, err)}
		}
		if limiter != nil {
			if err := limiter.WaitN(ctx, int(n)); err != nil {
				return err
			}
		}
		if size -= n; size == 0 {
			last()
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return err
		}
	}
	return nil
}

// unreadable is a body that cannot be read from the spool.
type unreadable struct{ err error }

func (e *unreadable) Error() string { return e.err.Error() }
func (e *unreadable) Unwrap() error { return e.err }

// content is what a body holds that some servers cannot take.
type content struct {
	eightBit   bool // any byte above 127
	headerUTF8 bool // one of them in the header
}

// inspect reads a body through.
func inspect(r io.Reader) (content, error) {
	var c content
	buf := make([]byte, smallBody)
	inHeader, line := true, 0 // line: bytes of the current line, CR aside
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			switch {
			case b >= 0x80:
				c.eightBit = true
				c.headerUTF8 = c.headerUTF8 || inHeader
				line++
			case b == '\n':
				if line == 0 {
					inHeader = false
				}
				line = 0
			case b != '\r':
				line++
			}
		}
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return c, &unreadable{err}
		}
	}
}
