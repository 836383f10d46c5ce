package simtest

import (
	"io"
	"net"
	"net/netip"
	"time"
)

// conn is one end of a connection.
type conn struct {
	machine               *Machine
	in, out               *stream
	local, remote         netip.AddrPort // zero for unix sockets
	localAddr, remoteAddr net.Addr
	whole                 bool // Read gives one packet at most
}

var _ net.Conn = (*conn)(nil)

func (c *conn) wrap(op string, n int, err error) (int, error) {
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, &net.OpError{Op: op, Net: c.localAddr.Network(), Source: c.localAddr, Addr: c.remoteAddr, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p, c.whole)
	return c.wrap("read", n, err)
}

// Write implements net.Conn. As TCP does, it returns when the bytes are on their
// way, whether they arrive or not.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return c.wrap("write", n, err)
}

// Close implements net.Conn. Bytes that came and were not read make it a reset,
// as with TCP.
func (c *conn) Close() error {
	closed := false
	unread := false
	c.in.set(func() {
		closed = c.in.noRead
		unread = len(c.in.queue) > 0
		c.in.noRead, c.in.deaf = true, true
		c.in.queue = nil
	})
	if closed {
		return &net.OpError{Op: "close", Net: c.localAddr.Network(), Source: c.localAddr, Addr: c.remoteAddr, Err: net.ErrClosed}
	}
	c.out.set(func() {
		c.out.noWrite = true
		if !unread {
			c.out.finish(time.Now())
		}
	})
	if unread {
		c.tellReset()
	}
	c.machine.net.forget(c)
	return nil
}

// abort closes with a reset.
func (c *conn) abort() {
	c.in.set(func() { c.in.noRead, c.in.deaf, c.in.queue = true, true, nil })
	c.out.set(func() { c.out.noWrite = true })
	c.tellReset()
	c.machine.net.forget(c)
}

// tellReset sends a reset to the other end. One that is lost on the way is not
// sent again.
func (c *conn) tellReset() {
	at := time.Now().Add(c.out.line.Latency)
	lost := false
	c.out.set(func() {
		if lost = c.out.cut; !lost {
			c.out.reset(at)
		}
	})
	if !lost {
		c.in.set(func() { c.in.reset(at) })
	}
}

// fail is the end of the machine on this end.
func (c *conn) fail(silent bool) {
	c.in.set(func() {
		c.in.noRead, c.in.deaf, c.in.queue = true, true, nil
		c.in.mute = silent
	})
	c.out.set(func() { c.out.noWrite = true })
	if !silent {
		c.tellReset()
	}
}

// forget tells the writer into a stream whose reader's machine was without power
// that nobody knows of the connection any more.
func (s *stream) forget(now time.Time) {
	s.set(func() {
		if !s.mute {
			return
		}
		s.mute = false
		if s.size > 0 { // it was sent again and again, and now it is answered
			s.reset(now.Add(s.line.Latency))
		}
	})
}

// CloseWrite ends the stream to the other end.
func (c *conn) CloseWrite() error {
	c.out.set(func() {
		c.out.noWrite = true
		c.out.finish(time.Now())
	})
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.localAddr }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remoteAddr }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.in.readBy = t })
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func() { c.out.writeBy = t })
	return nil
}

func (n *Net) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}
