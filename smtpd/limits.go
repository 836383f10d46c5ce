package smtpd

import (
	"net/netip"
	"sync"
)

// gate counts connections in total and by network: the address in IPv4, the /64
// in IPv6, which is what one customer of a provider gets.
type gate struct {
	mu    sync.Mutex // guards the two below; held for map operations only
	total int
	from  map[netip.Prefix]int
}

// enter takes a place among most, or reports false.
func (g *gate) enter(most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= most {
		return false
	}
	g.total++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
}

// enterFrom takes a place among those of a's network, or reports false.
func (g *gate) enterFrom(a netip.Addr, most int) bool {
	k := networkOf(a)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from[k] >= most {
		return false
	}
	if g.from == nil {
		g.from = map[netip.Prefix]int{}
	}
	g.from[k]++
	return true
}

func (g *gate) leaveFrom(a netip.Addr) {
	k := networkOf(a)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from[k]--; g.from[k] == 0 {
		delete(g.from, k)
	}
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

func networkOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // the invalid address gives the invalid prefix
	return p
}
