package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/mail"
)

const (
	lineBuffer  = 8 << 10  // read buffer of a connection
	dataBuffer  = 64 << 10 // and while a large message comes in
	maxCommand  = 4096     // octets of a command line, CRLF included
	maxSkip     = 64 << 10 // octets of a longer line that are skipped before hanging up
	flushAt     = 4 << 10  // replies are sent when they are this long, at the latest
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// errGone is the end of a session whose client has left.
var errGone = errors.New("the client has closed the connection")

// buffers are kept from one connection for the next.
type buffers struct{ line, data sync.Pool }

func (p *buffers) get(pool *sync.Pool, size int) []byte {
	if b, _ := pool.Get().(*[]byte); b != nil {
		return *b
	}
	return make([]byte, size)
}

func (p *buffers) put(b []byte) {
	switch len(b) {
	case lineBuffer:
		p.line.Put(&b)
	case dataBuffer:
		p.data.Put(&b)
	}
}

// wire is a connection: octets in, replies out, deadlines. Replies are kept back
// until the client's next octets are needed, so that the answers to pipelined
// commands leave together (RFC 2920 section 3.2). It belongs to the session's
// goroutine, but for stop.
type wire struct {
	raw     net.Conn // the socket
	conn    net.Conn // raw, or TLS over it
	pool    *buffers
	buf     []byte
	r, w    int // buf[r:w] was read and not used
	out     []byte
	timeout time.Duration // for writing

	readBy, writeBy time.Time // the deadlines that are set
	patient         bool      // stop is to wait: a message is coming in
	stopped         atomic.Bool
}

func newWire(c net.Conn, pool *buffers, timeout time.Duration) *wire {
	return &wire{raw: c, conn: c, pool: pool, buf: pool.get(&pool.line, lineBuffer), timeout: timeout}
}

// pending is what was read and not used; it is good until the next fill.
func (w *wire) pending() []byte { return w.buf[w.r:w.w] }

func (w *wire) use(n int) { w.r += n }

// fill sends the replies and reads more. Errors: errGone, a refusal for a
// deadline that has passed or a server that stops, or the network's.
func (w *wire) fill(by time.Time) error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.r == w.w {
		w.r, w.w = 0, 0
	} else if w.r > 0 && w.w == len(w.buf) {
		w.w = copy(w.buf, w.pending())
		w.r = 0
	}
	if w.w == len(w.buf) {
		panic("smtpd: fill of a full buffer: the reader before did not use it")
	}
	for {
		// The exact deadline does not matter, and setting one costs time.
		if d := by.Sub(w.readBy); d < 0 || d > time.Until(by)/8 {
			w.conn.SetReadDeadline(by)
			w.readBy = by
		}
		if w.stopped.Load() && !w.patient {
			return stopping()
		}
		n, err := w.conn.Read(w.buf[w.w:])
		w.w += n
		switch {
		case n > 0 || err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !w.stopped.Load() || !time.Now().Before(by) {
				return hangUp(reasonTimeout, 421, mail.Status{4, 4, 2}, "too slow: closing the connection")
			}
			w.readBy = time.Time{} // it was stop that cut the wait short
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
			return errGone
		default:
			return err
		}
	}
}

func stopping() error {
	return hangUp(reasonStopping, 421, mail.Status{4, 3, 2}, "this server is shutting down; try again soon")
}

// enlarge gives the reader of a long message a larger buffer.
func (w *wire) enlarge() {
	if len(w.buf) >= dataBuffer {
		return
	}
	b := w.pool.get(&w.pool.data, dataBuffer)
	w.swap(b)
}

// shrink gives it back, if what is pending allows.
func (w *wire) shrink() {
	if len(w.buf) > lineBuffer && w.w-w.r <= lineBuffer/2 {
		w.swap(w.pool.get(&w.pool.line, lineBuffer))
	}
}

func (w *wire) swap(b []byte) {
	n := copy(b, w.pending())
	w.pool.put(w.buf)
	w.buf, w.r, w.w = b, 0, n
}

// line reads a command line and returns it without its CRLF; it is good until
// the next call. A refusal without hangUp says that the line was read and is
// not acceptable.
func (w *wire) line(by time.Time) ([]byte, error) {
	seen := 0
	for {
		p := w.pending()
		if i := bytes.IndexByte(p[seen:], '\n'); i >= 0 {
			w.use(seen + i + 1)
			return checkCommand(p[:seen+i])
		}
		if len(p) >= maxCommand {
			return nil, w.skip(by)
		}
		seen = len(p)
		if err := w.fill(by); err != nil {
			return nil, err
		}
	}
}

// checkCommand wants the CRLF of RFC 5321 section 2.3.8 from commands too: an
// LF alone would let one server see two lines where another sees one.
func checkCommand(p []byte) ([]byte, error) {
	n := len(p) - 1
	if n < 0 || p[n] != '\r' {
		return nil, refuse(reasonLineEnding, 500, mail.Status{5, 5, 2}, "this line ends in a bare LF; commands end in CRLF")
	}
	p = p[:n]
	if bytes.IndexByte(p, '\r') >= 0 || bytes.IndexByte(p, 0) >= 0 {
		return nil, refuse(reasonLineEnding, 500, mail.Status{5, 5, 2}, "this line has a bare CR or a NUL in it")
	}
	if n > maxCommand-2 {
		return nil, errLongLine()
	}
	return p, nil
}

func errLongLine() *refusal { return syntax(500, 2, "this line is longer than 4096 octets") }

// skip passes over the rest of a line that is too long.
func (w *wire) skip(by time.Time) error {
	for skipped := 0; skipped < maxSkip; {
		p := w.pending()
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			w.use(i + 1)
			return errLongLine()
		}
		skipped += len(p)
		w.use(len(p))
		if err := w.fill(by); err != nil {
			return err
		}
	}
	r := errLongLine()
	r.hangUp = true
	return r
}

// reply queues a reply.
func (w *wire) reply(code int, status mail.Status, text string) {
	w.out = appendReply(w.out, code, status, text)
}

// flush sends what was queued.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	if by := time.Now().Add(w.timeout); by.Sub(w.writeBy) > w.timeout/8 {
		w.conn.SetWriteDeadline(by)
		w.writeBy = by
	}
	_, err := w.conn.Write(w.out)
	w.out = w.out[:0]
	return err
}

// startTLS makes the connection a TLS one. Octets that came before the handshake
// are not the client's own words (RFC 3207 section 4.2): there must be none.
func (w *wire) startTLS(conf *tls.Config, by time.Time) (*tls.ConnectionState, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	w.raw.SetDeadline(by)
	w.readBy, w.writeBy = by, by
	c := tls.Server(w.raw, conf)
	if err := c.HandshakeContext(context.Background()); err != nil {
		return nil, err
	}
	w.conn = c
	state := c.ConnectionState()
	return &state, nil
}

// stop makes the session end when it next waits for its client. It may be called
// from any goroutine.
func (w *wire) stop() {
	w.stopped.Store(true)
	w.raw.SetReadDeadline(time.Unix(1, 0))
}

// close sends what is left. A client that was still sending may not get the last
// reply unless its octets are read: TCP answers unread octets with a reset.
func (w *wire) close(linger bool) {
	err := w.flush()
	if c, ok := w.conn.(*tls.Conn); ok && err == nil {
		c.CloseWrite()
	}
	if linger && err == nil {
		lingerOn(w.raw)
	}
	w.raw.Close()
	w.pool.put(w.buf)
	w.buf = nil
}

func lingerOn(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, lingerBytes)
}
