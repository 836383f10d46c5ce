package delivery

import (
	"fmt"
	"net/netip"
	"sync/atomic"
)

// sources are the addresses that pushes leave from (B13), one list per family.
// Sessions take them in turn.
type sources struct {
	v4, v6 []netip.Addr
}

func parseSources(list []string) (*sources, error) {
	s := &sources{}
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("source_addresses: %q is not an address that mail can leave from; write for example 192.0.2.25", text)
		}
		if a = a.Unmap(); a.Is4() {
			s.v4 = append(s.v4, a)
		} else {
			s.v6 = append(s.v6, a)
		}
	}
	return s, nil
}

// all gives every address, for people and firewalls.
func (s *sources) all() []netip.Addr { return append(append([]netip.Addr(nil), s.v4...), s.v6...) }

// pick gives the address from which the turn-th session goes to dest. Without any
// configured address it is the zero Addr: the system chooses. ok false: only the
// other family has addresses, so dest must not be tried, as the customer's
// firewall would not know us.
func (s *sources) pick(turn uint64, dest netip.Addr) (src netip.Addr, ok bool) {
	list := s.v4
	if dest.Unmap().Is6() {
		list = s.v6
	}
	if len(list) == 0 {
		return netip.Addr{}, len(s.v4)+len(s.v6) == 0
	}
	return list[turn%uint64(len(list))], true
}

// turns counts sessions.
type turns struct{ n atomic.Uint64 }

func (t *turns) next() uint64 { return t.n.Add(1) - 1 }
