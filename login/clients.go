package login

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// client is one network of RADIUS clients.
type client struct {
	network netip.Prefix
	secret  []byte
}

// clients are the known ones, the smallest network first.
type clients []client

// newClients reads a list; an empty one is that of an unconfigured node. All
// errors are told at once, each with its key.
func newClients(list []Client) (clients, error) {
	if len(list) == 0 {
		list = defaultClients()
	}
	if len(list) > maxClients {
		return nil, fmt.Errorf("radius.clients: %d clients are more than %d; join them into networks", len(list), maxClients)
	}
	var cs clients
	var errs []error
	seen := map[netip.Prefix]int{}
	for i, c := range list {
		add := func(key, format string, args ...any) {
			errs = append(errs, fmt.Errorf("radius.clients[%d].%s: %s", i, key, fmt.Sprintf(format, args...)))
		}
		network, err := parseNetwork(c.Network)
		if err != nil {
			add("network", "%v", err)
			continue
		}
		if first, twice := seen[network]; twice {
			add("network", "%s stands in clients[%d] already", network, first)
		}
		seen[network] = i
		switch {
		case c.Secret == "":
			add("secret", "the secret of %s is empty; set secret or secret_file", network)
		case c.Secret == DefaultSecret && !loopback(network):
			add("secret", "everybody knows the default secret; choose another for %s, which is not this machine", network)
		}
		cs = append(cs, client{network, []byte(c.Secret)})
	}
	slices.SortStableFunc(cs, func(a, b client) int { return b.network.Bits() - a.network.Bits() })
	return cs, errors.Join(errs...)
}

func parseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address or network; write for example 192.0.2.1 or 192.0.2.0/24", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write for example 192.0.2.0/24", s)
	}
	return p.Masked(), nil
}

// loopback reports a network within this machine.
func loopback(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Addr().IsLoopback() && p.Bits() >= 8
	}
	return p.Addr().IsLoopback() && p.IsSingleIP()
}

// find gives the client of an address, or nil.
func (cs clients) find(a netip.Addr) *client {
	a = a.Unmap().WithZone("")
	for i := range cs {
		if cs[i].network.Contains(a) {
			return &cs[i]
		}
	}
	return nil
}
