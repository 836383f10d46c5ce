package strict

import (
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
	flushAt     = 4 << 10  // replies are sent when they are this long, at the latest
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// Pool keeps read buffers from one connection for the next. The zero value is
// ready for use.
type Pool struct{ line, data sync.Pool }

func (p *Pool) get(pool *sync.Pool, size int) []byte {
	if b, _ := pool.Get().(*[]byte); b != nil {
		return *b
	}
	return make([]byte, size)
}

func (p *Pool) put(b []byte) {
	switch len(b) {
	case lineBuffer:
		p.line.Put(&b)
	case dataBuffer:
		p.data.Put(&b)
	}
}

// wire is a connection: octets in, replies out, deadlines. Replies are kept back
// until the client's next octets are needed, so that the answers to pipelined
// commands leave together (RFC 2920 section 3.2). It belongs to one goroutine,
// but for Stop, Finish and Abort.
type wire struct {
	raw  net.Conn // the socket
	conn net.Conn // raw, or TLS over it
	pool *Pool
	buf  []byte
	r, w int // buf[r:w] was read and not used
	out  []byte
	owed bool // out has what became of a message

	idle, writing   time.Duration
	until           time.Time // the end of the session
	readBy, writeBy time.Time // the deadlines that are set
	stopped         atomic.Bool
	finishing       atomic.Bool
	linger          bool // the client is likely to be still sending
	closed          bool
}

func (w *wire) init(raw net.Conn, pool *Pool, cfg *Config) {
	w.raw, w.conn, w.pool = raw, raw, pool
	w.buf = pool.get(&pool.line, lineBuffer)
	w.idle = orDefault(cfg.IdleTimeout, 5*time.Minute)
	w.writing = orDefault(cfg.WriteTimeout, time.Minute)
	w.until = time.Now().Add(orDefault(cfg.SessionTimeout, 2*time.Hour))
}

// pending is what was read and not used; it is good until the next fill.
func (w *wire) pending() []byte { return w.buf[w.r:w.w] }

func (w *wire) use(n int) { w.r += n }

// deadline is when the session gives up on a client that says nothing.
func (w *wire) deadline(now time.Time) time.Time {
	if idle := now.Add(w.idle); idle.Before(w.until) {
		return idle
	}
	return w.until
}

// fill sends the replies and reads more. patient says that Stop is to wait, for
// a message is coming in. Errors: ErrGone, a *Fault for a deadline that has
// passed or a server that stops, or the network's.
func (w *wire) fill(by time.Time, patient bool) error {
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
		panic("strict: fill of a full buffer: the reader before did not use it")
	}
	for {
		// Setting a deadline costs time: one that is a little too early is put
		// off when it is reached.
		if d := by.Sub(w.readBy); d < 0 || d > time.Until(by)/8 {
			w.conn.SetReadDeadline(by)
			w.readBy = by
		}
		if w.stopped.Load() && (!patient || w.finishing.Load()) {
			return stopping()
		}
		n, err := w.conn.Read(w.buf[w.w:])
		w.w += n
		switch {
		case n > 0 || err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !time.Now().Before(by) {
				return fault(Timeout, 421, mail.Status{4, 4, 2}, "too slow: closing the connection").hangUp()
			}
			w.readBy = time.Time{} // it was an earlier deadline, or Stop
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
			return ErrGone
		default:
			return err
		}
	}
}

func stopping() *Fault {
	return fault(Stopping, 421, mail.Status{4, 3, 2}, "this server is shutting down; try again soon").hangUp()
}

// enlarge gives the reader of a long message a larger buffer.
func (w *wire) enlarge() {
	if len(w.buf) < dataBuffer {
		w.swap(w.pool.get(&w.pool.data, dataBuffer))
	}
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

// flush sends the replies.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	if by := time.Now().Add(w.writing); by.Sub(w.writeBy) > w.writing/8 {
		w.conn.SetWriteDeadline(by)
		w.writeBy = by
	}
	_, err := w.conn.Write(w.out)
	w.out, w.owed = w.out[:0], false
	return err
}

// Stop ends the session, with a reply, when it next waits for a command. It may
// be called from any goroutine.
func (w *wire) Stop() {
	w.stopped.Store(true)
	w.raw.SetReadDeadline(time.Unix(1, 0))
}

// Finish ends the session with the reply to what the backend is at now: nothing
// more is read for it, be it a command that was sent ahead or a message. It may
// be called from any goroutine.
func (w *wire) Finish() {
	w.finishing.Store(true)
	w.Stop()
}

// Abort closes the connection without a word. It may be called from any
// goroutine.
func (w *wire) Abort() { w.raw.Close() }

// close sends what is left. A client that is still sending may not get the last
// reply unless its octets are read: TCP answers unread octets with a reset.
func (w *wire) close() {
	if w.closed {
		return
	}
	w.closed = true
	err := w.flush()
	if c, ok := w.conn.(*tls.Conn); ok && err == nil {
		c.CloseWrite()
	}
	if w.linger && err == nil {
		lingerOn(w.raw)
	}
	w.raw.Close()
	w.pool.put(w.buf)
	w.buf, w.r, w.w = nil, 0, 0
}

func lingerOn(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, lingerBytes)
}
