package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Bounds of one search for a server.
const (
	maxRoutes = 16   // routes of one account that wait for their turn in one session
	maxPasses = 1000 // routes of one account that one session tries, one after the other
	maxMX     = 10   // hosts of a domain that are looked at
	maxPlaces = 12   // addresses that are dialled before the session gives up
)

// Directory is where customers' mail goes.
type Directory interface {
	Account(login mail.Login) (*directory.Account, error)
	Domain(name mail.Domain) (*directory.Domain, error)
}

var _ Directory = directory.Reader{}

// target is where one part of a queue's mail goes.
type target struct {
	text  string   // for people
	hosts []string // names or addresses in the order in which they are tried
	port  uint16
	tls   directory.TLSPolicy
	out   bool // to the world
	mx    bool // hosts come from MX records
}

// routes answers, for one session, which route a recipient's mail takes. It
// remembers the answers: an account may have thousands of domains, and all
// recipients of a session are asked for.
type routes struct {
	dir     Directory
	account *directory.Account
	known   map[mail.Domain]directory.Route
}

const maxKnownRoutes = 10_000

func newRoutes(dir Directory, login mail.Login) (*routes, error) {
	a, err := dir.Account(login)
	if err != nil {
		return nil, err
	}
	return &routes{dir: dir, account: a, known: map[mail.Domain]directory.Route{}}, nil
}

// of is the route to a recipient's domain. A domain that does not exist any more,
// or went to another account, takes the account's route: its mail was accepted
// for this account.
func (r *routes) of(d mail.Domain) (directory.Route, error) {
	if route, ok := r.known[d]; ok {
		return route, nil
	}
	row, err := r.dir.Domain(d)
	if err != nil {
		return directory.Route{}, err
	}
	if row != nil && r.account != nil && row.Login != r.account.Login {
		row = nil
	}
	route := directory.RouteOf(r.account, row)
	if len(r.known) >= maxKnownRoutes {
		clear(r.known)
	}
	r.known[d] = route
	return route, nil
}

// routeTarget is the target of a customer's route.
func routeTarget(login mail.Login, r directory.Route) (target, *refusal) {
	if r.Host == "" {
		return target{}, &refusal{err: fmt.Errorf("account %s has no route and no fixed address; set one with \"bsmtpd account set %s --route HOST\"", login, login)}
	}
	return target{text: r.String(), hosts: []string{r.Host}, port: r.Port, tls: r.TLS}, nil
}

// final makes the refusal of everything for a domain: no retry can help.
func final(code int, status mail.Status, format string, args ...any) *refusal {
	text := fmt.Sprintf(format, args...)
	return &refusal{final: true, reply: mail.Reply{Code: code, Status: status, Text: text}, err: errors.New(text)}
}

// outTarget finds the servers of a domain in the world (RFC 5321 section 5.1).
func (c *client) outTarget(ctx context.Context, d mail.Domain) (target, *refusal) {
	t := target{text: string(d), port: uint16(c.cfg.OutPort), out: true}
	if c.cfg.Smarthost != "" {
		name, port, err := splitHost(c.cfg.Smarthost, c.cfg.OutPort)
		if err != nil {
			return t, &refusal{err: err}
		}
		t.text, t.hosts, t.port = c.cfg.Smarthost, []string{name}, port
		return t, nil
	}
	if lit, ok := strings.CutPrefix(string(d), "["); ok {
		lit = strings.TrimPrefix(strings.TrimSuffix(lit, "]"), "ipv6:")
		if _, err := netip.ParseAddr(lit); err != nil {
			return t, final(550, mail.Status{5, 1, 2}, "the address literal %s is not an IP address", d)
		}
		t.hosts = []string{lit}
		return t, nil
	}
	mxs, err := c.host.DNS.MX(ctx, string(d))
	switch {
	case len(mxs) > 0:
		return c.mxTarget(t, d, mxs)
	case err != nil && !host.IsNotFound(err):
		return t, &refusal{err: fmt.Errorf("the MX records of %s cannot be looked up now: %w", d, host.Plain(err))}
	}
	// "If an empty list of MXs is returned, the address is treated as if it was
	// associated with an implicit MX RR, with a preference of 0, pointing to
	// that host." (RFC 5321 section 5.1)
	t.hosts = []string{string(d)}
	return t, nil
}

func (c *client) mxTarget(t target, d mail.Domain, mxs []*net.MX) (target, *refusal) {
	t.mx = true
	mxs = slices.Clone(mxs)
	// RFC 7505: a single MX record with an empty name says "no mail here".
	mxs = slices.DeleteFunc(mxs, func(m *net.MX) bool { return m.Host == "." || m.Host == "" })
	if len(mxs) == 0 {
		return t, final(556, mail.Status{5, 1, 10}, "domain %s says that it takes no mail (null MX)", d)
	}
	// "the sender-SMTP MUST randomize them to spread the load" (section 5.1)
	c.chance.shuffle(len(mxs), func(i, j int) { mxs[i], mxs[j] = mxs[j], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	for i, m := range mxs {
		if c.self.isMe(m.Host) {
			// Mail must only go to servers that are preferred to ourselves.
			mxs = slices.DeleteFunc(mxs[:i], func(o *net.MX) bool { return o.Pref == m.Pref })
			break
		}
	}
	if len(mxs) == 0 {
		return t, loopsOut(d)
	}
	for _, m := range mxs[:min(len(mxs), maxMX)] {
		t.hosts = append(t.hosts, strings.TrimSuffix(strings.ToLower(m.Host), "."))
	}
	return t, nil
}

func loopsOut(d mail.Domain) *refusal {
	r := final(554, mail.Status{5, 4, 6}, "mail for %s loops back to this server: its mail servers are this server, which does not know the domain", d)
	r.loop = true
	return r
}

// network is the network whose sessions are counted together: /24 or /64.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// networkOf is the network of an account's own route, where that is an address.
func networkOf(dir Directory, q spool.QueueName) netip.Prefix {
	if !q.IsAccount() {
		return netip.Prefix{}
	}
	a, err := dir.Account(q.Login())
	if err != nil || a == nil {
		return netip.Prefix{} // the session will say what is wrong
	}
	addr, err := netip.ParseAddr(directory.RouteOf(a, nil).Host)
	if err != nil {
		return netip.Prefix{}
	}
	return network(addr)
}
