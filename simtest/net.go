package simtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"bsmtpd/host"
)

// Net is a made-up network: TCP, UDP and unix sockets between machines, with
// lines that are slow, silent, cut in one direction, or refuse. It has no
// goroutine of its own and works in a synctest bubble.
//
// An address that no machine has is like one that is not routed: nothing comes
// back from it.
type Net struct {
	mu        sync.Mutex // guards what follows, and is never held while waiting
	changed   chan struct{}
	owners    map[netip.Addr]*Machine
	listeners map[string]*listener // by network and address
	sockets   map[netip.AddrPort]*packetConn
	conns     map[*conn]struct{} // ends that are open
	lines     map[netip.Addr]Line
	silent    map[netip.Addr]bool
	refusing  map[netip.Addr]bool
	cuts      map[way]bool
	port      uint16 // the last one that was given out
}

// Line is how an address is reached.
type Line struct {
	Latency time.Duration // one way
	Rate    int           // bytes per second each way; 0: no limit
}

// standardLine is a line that nobody has described.
var standardLine = Line{Latency: 2 * time.Millisecond}

// way is one direction between two addresses.
type way struct{ from, to netip.Addr }

// NewNet makes an empty network.
func NewNet() *Net {
	return &Net{changed: make(chan struct{}), owners: map[netip.Addr]*Machine{}, listeners: map[string]*listener{},
		sockets: map[netip.AddrPort]*packetConn{}, conns: map[*conn]struct{}{}, lines: map[netip.Addr]Line{},
		silent: map[netip.Addr]bool{}, refusing: map[netip.Addr]bool{}, cuts: map[way]bool{}, port: 32768}
}

// Machine is one computer on the network, from when it is switched on until its
// power fails. The next time it is another Machine with the same addresses.
type Machine struct {
	net   *Net
	addrs []netip.Addr
	off   bool // guarded by net.mu
}

var _ host.Net = (*Machine)(nil)

// Machine connects a computer. Its first address is the one that it dials from.
func (n *Net) Machine(addrs ...netip.Addr) *Machine {
	m := &Machine{net: n, addrs: addrs}
	n.update(func() {
		for _, a := range addrs {
			if n.owners[a] != nil {
				panic(fmt.Sprintf("simtest: two machines with the address %s", a))
			}
			n.owners[a] = m
		}
		now := time.Now()
		for c := range n.conns { // those who still talk to what it was before learn that it is gone
			if n.owners[c.remote.Addr()] == m {
				c.out.forget(now)
			}
		}
	})
	return m
}

// update changes the network's state, and wakes and cuts whoever that concerns.
func (n *Net) update(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
	now := time.Now()
	for c := range n.conns {
		if n.blocked(c.local.Addr(), c.remote.Addr()) {
			c.out.sever(now)
		} else {
			c.out.mend(now)
		}
	}
}

func (n *Net) blocked(from, to netip.Addr) bool {
	return n.silent[from] || n.silent[to] || n.cuts[way{from, to}]
}

// SetLine describes the line of an address.
func (n *Net) SetLine(a netip.Addr, l Line) { n.update(func() { n.lines[a] = l }) }

// Silence lets nothing pass to or from an address: a line that is down.
func (n *Net) Silence(a netip.Addr, on bool) { n.update(func() { n.silent[a] = on }) }

// Refuse lets an address refuse new connections, whoever listens there.
func (n *Net) Refuse(a netip.Addr, on bool) { n.update(func() { n.refusing[a] = on }) }

// Cut lets nothing pass in one direction.
func (n *Net) Cut(from, to netip.Addr, on bool) { n.update(func() { n.cuts[way{from, to}] = on }) }

// Reset breaks all connections of an address.
func (n *Net) Reset(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for c := range n.conns {
		if c.local.Addr() == a || c.remote.Addr() == a {
			c.in.set(func() { c.in.reset(now) })
			c.out.set(func() { c.out.reset(now) })
		}
	}
}

// Heal ends all faults.
func (n *Net) Heal() {
	n.update(func() {
		clear(n.silent)
		clear(n.refusing)
		clear(n.cuts)
	})
}

// lineOf is the line between two addresses: the slower of their two.
func (n *Net) lineOf(a, b netip.Addr) Line {
	get := func(a netip.Addr) Line {
		if l, ok := n.lines[a]; ok {
			return l
		}
		return standardLine
	}
	x, y := get(a), get(b)
	l := Line{Latency: max(x.Latency, y.Latency), Rate: x.Rate}
	if l.Rate == 0 || y.Rate > 0 && y.Rate < l.Rate {
		l.Rate = y.Rate
	}
	return l
}

// Fail takes the machine off the network at once: its listeners are gone, and
// whatever it still says is heard by nobody. silent: its peers are not told, as
// when the power fails; otherwise they get a reset, as when a process dies.
func (m *Machine) Fail(silent bool) {
	m.net.update(func() {
		if m.off {
			return
		}
		m.off = true
		for _, a := range m.addrs {
			delete(m.net.owners, a)
		}
		for key, l := range m.net.listeners {
			if l.machine == m {
				l.stop()
				delete(m.net.listeners, key)
			}
		}
		for key, s := range m.net.sockets {
			if s.machine == m {
				s.stop()
				delete(m.net.sockets, key)
			}
		}
		for c := range m.net.conns {
			if c.machine == m {
				c.fail(silent)
				delete(m.net.conns, c)
			}
		}
	})
}

// Open is how many connections the machine has.
func (m *Machine) Open() int {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	k := 0
	for c := range m.net.conns {
		if c.machine == m {
			k++
		}
	}
	return k
}

func opError(op, network, address string, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: stringAddr{network, address}, Err: err}
}

type stringAddr struct{ network, text string }

func (a stringAddr) Network() string { return a.network }
func (a stringAddr) String() string  { return a.text }

// bind finds the address that a machine listens on; port 0 is a free one.
func (m *Machine) bind(address string, used func(netip.AddrPort) bool) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return at, err
	}
	if m.net.owners[at.Addr()] != m {
		return at, syscall.EADDRNOTAVAIL
	}
	if at.Port() == 0 {
		for {
			if at = netip.AddrPortFrom(at.Addr(), m.net.nextPort()); !used(at) {
				return at, nil
			}
		}
	}
	if used(at) {
		return at, syscall.EADDRINUSE
	}
	return at, nil
}

func (n *Net) nextPort() uint16 {
	if n.port++; n.port < 32768 {
		n.port = 32768
	}
	return n.port
}

// Listen implements host.Net for tcp and unix.
func (m *Machine) Listen(network, address string) (net.Listener, error) {
	l := &listener{machine: m, conns: make(chan *conn, backlog), closed: make(chan struct{})}
	var err error
	m.net.update(func() {
		switch {
		case m.off:
			err = syscall.ENETDOWN
		case network == "unix":
			l.key, l.addr = unixKey(m, address), &net.UnixAddr{Name: address, Net: "unix"}
			if m.net.listeners[l.key] != nil {
				err = syscall.EADDRINUSE
			}
		default:
			var at netip.AddrPort
			at, err = m.bind(address, func(a netip.AddrPort) bool { return m.net.listeners[tcpKey(a)] != nil })
			l.key, l.addr = tcpKey(at), net.TCPAddrFromAddrPort(at)
		}
		if err == nil {
			m.net.listeners[l.key] = l
		}
	})
	if err != nil {
		return nil, opError("listen", network, address, err)
	}
	return l, nil
}

func tcpKey(a netip.AddrPort) string { return "tcp " + a.String() }

func unixKey(m *Machine, path string) string { return fmt.Sprintf("unix %p %s", m, path) }

// backlog is how many connections wait for Accept; further ones wait for room.
const backlog = 128

type listener struct {
	machine *Machine
	key     string
	addr    net.Addr
	conns   chan *conn
	once    sync.Once
	closed  chan struct{}
	whole   bool // its connections read one packet at a time
}

func (l *listener) stop() { l.once.Do(func() { close(l.closed) }) }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, opError("accept", l.addr.Network(), l.addr.String(), net.ErrClosed)
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, opError("accept", l.addr.Network(), l.addr.String(), net.ErrClosed)
	}
}

// Close implements net.Listener. Who was not accepted yet gets a reset.
func (l *listener) Close() error {
	l.stop()
	l.machine.net.update(func() {
		if l.machine.net.listeners[l.key] == l {
			delete(l.machine.net.listeners, l.key)
		}
	})
	for {
		select {
		case c := <-l.conns:
			c.abort()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// Dial implements host.Net.
func (m *Machine) Dial(ctx context.Context, network string, local netip.Addr, address string) (net.Conn, error) {
	c, err := m.dial(ctx, network, local, address)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = context.DeadlineExceeded
		}
		return nil, opError("dial", network, address, err)
	}
	return c, nil
}

func (m *Machine) dial(ctx context.Context, network string, local netip.Addr, address string) (net.Conn, error) {
	if network == "unix" {
		return m.connect(unixKey(m, address), netip.AddrPort{}, netip.AddrPort{}, &net.UnixAddr{Name: address, Net: "unix"})
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	if !local.IsValid() {
		local = m.addrs[0]
	}
	for {
		state, latency, changed := m.look(local, to)
		switch {
		case state == wayWaits:
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case state == wayNone:
			return nil, syscall.EADDRNOTAVAIL
		}
		if err := host.Sleep(ctx, 2*latency); err != nil {
			return nil, err
		}
		if again, _, _ := m.look(local, to); again == wayWaits {
			continue
		}
		from := netip.AddrPortFrom(local, m.freePort())
		c, err := m.connect(tcpKey(to), from, to, net.TCPAddrFromAddrPort(to))
		if errors.Is(err, syscall.EAGAIN) {
			if err := host.Sleep(ctx, time.Second); err != nil { // the caller's system asks again
				return nil, err
			}
			continue
		}
		return c, err
	}
}

func (m *Machine) freePort() uint16 {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	return m.net.nextPort()
}

// What a packet to an address meets.
const (
	wayOpen  = iota
	wayNone  // the caller does not have the address it wants to call from
	wayWaits // nothing comes back
)

func (m *Machine) look(from netip.Addr, to netip.AddrPort) (state int, latency time.Duration, changed <-chan struct{}) {
	n := m.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case m.off || n.owners[from] != m:
		return wayNone, 0, nil
	case n.owners[to.Addr()] == nil || n.blocked(from, to.Addr()) || n.blocked(to.Addr(), from):
		return wayWaits, 0, n.changed
	}
	return wayOpen, n.lineOf(from, to.Addr()).Latency, nil
}

// connect makes the two ends of a connection. EAGAIN: the listener has no room.
func (m *Machine) connect(key string, from, to netip.AddrPort, remote net.Addr) (net.Conn, error) {
	n := m.net
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[key]
	if m.off || l == nil || n.refusing[to.Addr()] {
		return nil, syscall.ECONNREFUSED
	}
	var line Line
	var localAddr net.Addr = &net.UnixAddr{Net: "unix"}
	if to.IsValid() {
		line, localAddr = n.lineOf(from.Addr(), to.Addr()), net.TCPAddrFromAddrPort(from)
	}
	there, back := newStream(line), newStream(line)
	mine := &conn{machine: m, in: back, out: there, local: from, remote: to, localAddr: localAddr, remoteAddr: remote}
	theirs := &conn{machine: l.machine, in: there, out: back, local: to, remote: from, localAddr: remote, remoteAddr: localAddr, whole: l.whole}
	select {
	case l.conns <- theirs:
	default:
		return nil, syscall.EAGAIN
	}
	n.conns[mine], n.conns[theirs] = struct{}{}, struct{}{}
	return mine, nil
}
