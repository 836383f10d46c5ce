package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"bsmtpd/host"
)

// memNet is a network in memory, so that tests can fake time.
type memNet struct {
	mu        sync.Mutex // guards what follows
	listeners map[string]*memListener
	silent    map[string]bool // addresses that never answer
	latency   time.Duration   // one way
	up, down  *line           // to the customers, and back; nil: without end
	dials     []string        // "source > destination"
	ports     uint16
}

var _ host.Net = (*memNet)(nil)

func newMemNet() *memNet {
	return &memNet{listeners: map[string]*memListener{}, silent: map[string]bool{}, ports: 40000}
}

func (n *memNet) Listen(_, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("%s is in use", address)
	}
	l := &memListener{net: n, addr: address, conns: make(chan net.Conn, 100), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

func (n *memNet) ListenPacket(_, _ string) (net.PacketConn, error) {
	return nil, errors.New("no packets here")
}

func (n *memNet) Dial(ctx context.Context, _ string, local netip.Addr, address string) (net.Conn, error) {
	if !local.IsValid() {
		local = netip.MustParseAddr("198.51.100.1")
	}
	n.mu.Lock()
	n.ports++
	src := netip.AddrPortFrom(local, n.ports)
	n.dials = append(n.dials, local.String()+" > "+address)
	up, down := n.up, n.down
	l, silent, latency := n.listeners[address], n.silent[address], n.latency
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, refused(address)
	}
	dest := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
	time.Sleep(2 * latency)
	a, b := newHalf(), newHalf()
	a.latency, b.latency = latency, latency
	a.line, b.line = down, up
	mine := &memConn{r: a, w: b, local: net.TCPAddrFromAddrPort(src), remote: dest}
	theirs := &memConn{r: b, w: a, local: dest, remote: net.TCPAddrFromAddrPort(src)}
	select {
	case l.conns <- theirs:
		return mine, nil
	case <-l.closed:
		return nil, refused(address)
	}
}

// refused is the system's word for it.
func refused(address string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)),
		Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func (n *memNet) silence(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[address] = on
}

func (n *memNet) dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dials...)
}

type memListener struct {
	net    *memNet
	addr   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *memListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.addr))
}

// half is one direction of a connection: a bounded buffer.
type half struct {
	mu       sync.Mutex // guards what follows
	buf      []byte
	eof      bool // the writer has closed
	gone     bool // the reader has closed
	deadline time.Time
	changed  chan struct{} // closed and replaced at each change
	segments [][]byte      // the writes, small ones only
	latency  time.Duration
	line     *line
	arrives  []arrival // of what is in buf, in order
}

type arrival struct {
	at time.Time
	n  int
}

const (
	halfBytes    = 256 << 10
	segmentBytes = 1460
)

func newHalf() *half { return &half{changed: make(chan struct{})} }

func (h *half) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(p []byte) (int, error) {
	for {
		h.mu.Lock()
		changed, deadline := h.changed, h.deadline
		switch {
		case h.gone:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case len(h.buf) > 0:
			if wait := time.Until(h.arrives[0].at); wait > 0 {
				h.mu.Unlock()
				time.Sleep(wait)
				continue
			}
			n := copy(p[:min(len(p), h.arrives[0].n)], h.buf)
			h.buf = h.buf[n:]
			if h.arrives[0].n -= n; h.arrives[0].n == 0 {
				h.arrives = h.arrives[1:]
			}
			h.tell()
			h.mu.Unlock()
			return n, nil
		case h.eof:
			h.mu.Unlock()
			return 0, io.EOF
		}
		h.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-changed:
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (h *half) write(p []byte) (int, error) {
	total := 0
	h.mu.Lock()
	if len(p) < 16<<10 {
		h.segments = append(h.segments, append([]byte(nil), p...))
	}
	h.mu.Unlock()
	for len(p) > 0 {
		h.mu.Lock()
		changed := h.changed
		switch {
		case h.gone || h.eof:
			h.mu.Unlock()
			return total, io.ErrClosedPipe
		case len(h.buf) < halfBytes:
			n, at := min(len(p), halfBytes-len(h.buf)), time.Now()
			if h.line != nil {
				n = min(n, segmentBytes)
				at = h.line.carry(n)
			}
			h.buf = append(h.buf, p[:n]...)
			h.arrives = append(h.arrives, arrival{at.Add(h.latency), n})
			p, total = p[n:], total+n
			h.tell()
			h.mu.Unlock()
			continue
		}
		h.mu.Unlock()
		<-changed
	}
	return total, nil
}

func (h *half) set(f func()) {
	h.mu.Lock()
	f()
	h.tell()
	h.mu.Unlock()
}

type memConn struct {
	r, w          *half
	local, remote net.Addr
}

func (c *memConn) Read(p []byte) (int, error)  { return c.r.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.w.write(p) }
func (c *memConn) Close() error {
	c.w.set(func() { c.w.eof = true })
	c.r.set(func() { c.r.gone = true })
	return nil
}
func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }
func (c *memConn) SetDeadline(t time.Time) error {
	c.r.set(func() { c.r.deadline = t })
	return nil
}
func (c *memConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error  { return nil }
