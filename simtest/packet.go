package simtest

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxPackets wait to be read at one socket; more are lost, as with UDP.
const maxPackets = 1024

// packetConn is a UDP socket.
type packetConn struct {
	machine *Machine
	at      netip.AddrPort

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	queue   []packet
	readBy  time.Time
	closed  bool
}

type packet struct {
	from netip.AddrPort
	data []byte
	at   time.Time
}

var _ net.PacketConn = (*packetConn)(nil)

// ListenPacket implements host.Net for udp.
func (m *Machine) ListenPacket(network, address string) (net.PacketConn, error) {
	s := &packetConn{machine: m, changed: make(chan struct{})}
	var err error
	m.net.update(func() {
		if m.off {
			err = syscall.ENETDOWN
			return
		}
		if s.at, err = m.bind(address, func(a netip.AddrPort) bool { return m.net.sockets[a] != nil }); err == nil {
			m.net.sockets[s.at] = s
		}
	})
	if err != nil {
		return nil, opError("listen", network, address, err)
	}
	return s, nil
}

func (s *packetConn) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *packetConn) stop() { s.set(func() { s.closed = true }) }

// ReadFrom implements net.PacketConn.
func (s *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, wait, changed, err := s.try(p)
		if err != nil {
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Source: s.LocalAddr(), Err: err}
		}
		if from != nil {
			return n, from, nil
		}
		await(changed, wait)
	}
}

func (s *packetConn) try(p []byte) (n int, from net.Addr, wait time.Time, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.closed:
		return 0, nil, wait, nil, net.ErrClosed
	case !s.readBy.IsZero() && !now.Before(s.readBy):
		return 0, nil, wait, nil, os.ErrDeadlineExceeded
	}
	wait = s.readBy
	if len(s.queue) == 0 {
		return 0, nil, wait, s.changed, nil
	}
	first := s.queue[0]
	if first.at.After(now) {
		if wait.IsZero() || first.at.Before(wait) {
			wait = first.at
		}
		return 0, nil, wait, s.changed, nil
	}
	s.queue = s.queue[1:]
	return copy(p, first.data), net.UDPAddrFromAddrPort(first.from), wait, nil, nil
}

// WriteTo implements net.PacketConn. Whether the packet arrives is not known.
func (s *packetConn) WriteTo(p []byte, to net.Addr) (int, error) {
	dest, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, err
	}
	n := s.machine.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.machine.off {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: s.LocalAddr(), Addr: to, Err: net.ErrClosed}
	}
	there := n.sockets[dest]
	if there == nil || n.blocked(s.at.Addr(), dest.Addr()) {
		return len(p), nil
	}
	at := time.Now().Add(n.lineOf(s.at.Addr(), dest.Addr()).Latency)
	there.set(func() {
		if len(there.queue) < maxPackets {
			there.queue = append(there.queue, packet{s.at, append([]byte(nil), p...), at})
		}
	})
	return len(p), nil
}

// Close implements net.PacketConn.
func (s *packetConn) Close() error {
	s.stop()
	n := s.machine.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[s.at] == s {
		delete(n.sockets, s.at)
	}
	return nil
}

// LocalAddr implements net.PacketConn.
func (s *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.at) }

// SetDeadline implements net.PacketConn.
func (s *packetConn) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (s *packetConn) SetReadDeadline(t time.Time) error {
	s.set(func() { s.readBy = t })
	return nil
}

// SetWriteDeadline implements net.PacketConn; a packet is sent at once.
func (s *packetConn) SetWriteDeadline(time.Time) error { return nil }
