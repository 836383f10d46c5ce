package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/host"
)

func (s *Server) checkDomain(ctx context.Context, in *DomainPath) (*body[wire.DomainCheck], error) {
	d, err := s.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	acct, err := s.deps.Node.Directory().Account(d.Login)
	if acct, err = found(acct, err, "account", d.Login); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.config().ProbeTimeout)
	defer cancel()
	return &body[wire.DomainCheck]{s.domainCheck(ctx, acct, d, true)}, nil
}

// domainCheck looks at a domain's MX records and its route.
func (s *Server) domainCheck(ctx context.Context, acct *directory.Account, d *directory.Domain, dns bool) wire.DomainCheck {
	route := directory.RouteOf(acct, d)
	out := wire.DomainCheck{Domain: d.Name, Login: d.Login, Route: route.String(), MX: []string{}, Verdict: wire.Skipped}
	if dns {
		out.Checks = append(out.Checks, s.checkMX(ctx, d, &out))
	}
	out.Checks = append(out.Checks, s.checkRoute(ctx, route, dns))
	for _, c := range out.Checks {
		out.Verdict = wire.Worse(out.Verdict, c.Verdict)
	}
	return out
}

// mxHosts are the names that MX records should have.
func (s *Server) mxHosts() []string {
	if hosts := s.config().MXHosts; len(hosts) > 0 {
		return hosts
	}
	if s.deps.Hostname == "" {
		return nil
	}
	return []string{s.deps.Hostname}
}

func (s *Server) checkMX(ctx context.Context, d *directory.Domain, out *wire.DomainCheck) wire.Check {
	c := wire.Check{Name: "mx"}
	want := s.mxHosts()
	wanted := fmt.Sprintf("the MX records of %s must be %s", d.Name, strings.Join(want, " and "))
	records, err := s.deps.Host.DNS.MX(ctx, string(d.Name))
	switch {
	case host.IsNotFound(err):
		c.Verdict, c.Found, c.Advice = wire.Bad, fmt.Sprintf("%s has no MX record", d.Name), wanted
		return c
	case err != nil:
		c.Verdict, c.Found, c.Advice = wire.Warn, fmt.Sprintf("the MX records of %s could not be looked up: %v", d.Name, err), "look again later; if it stays so, the domain's name servers are at fault"
		return c
	}
	ours, best := 0, uint16(0xffff)
	for _, mx := range records {
		best = min(best, mx.Pref)
	}
	bestOurs := false
	for _, mx := range records {
		name := strings.ToLower(strings.TrimSuffix(mx.Host, "."))
		out.MX = append(out.MX, fmt.Sprintf("%d %s", mx.Pref, name))
		if slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(strings.TrimSuffix(w, "."), name) }) {
			ours++
			bestOurs = bestOurs || mx.Pref == best
		}
	}
	c.Found = fmt.Sprintf("MX of %s: %s", d.Name, strings.Join(out.MX, ", "))
	switch {
	case len(want) == 0:
		c.Verdict, c.Advice = wire.Skipped, "set api.mx_hosts to the names that MX records must have"
	case ours == len(records):
		c.Verdict = wire.OK
	case bestOurs:
		c.Verdict, c.Advice = wire.Warn, "a part of the mail can go past this server; "+wanted+" alone"
	default:
		c.Verdict, c.Advice = wire.Bad, "mail for this domain goes elsewhere first; "+wanted
	}
	return c
}

// checkRoute says where a route points.
func (s *Server) checkRoute(ctx context.Context, route directory.Route, dns bool) wire.Check {
	c := wire.Check{Name: "route", Verdict: wire.OK, Found: "mail is pushed to " + route.String()}
	if route == (directory.Route{}) {
		return wire.Check{Name: "route", Verdict: wire.Bad, Found: "there is no route and no fixed address",
			Advice: "give the account an address (account set LOGIN --address IP) or a route (--route HOST)"}
	}
	if !dns {
		return c
	}
	target, err := s.resolve(ctx, route)
	switch {
	case host.IsNotFound(err):
		c.Verdict, c.Found, c.Advice = wire.Bad, fmt.Sprintf("route %s: the name does not exist", route), "correct the route (account set or domain set --route), or the name in DNS"
	case err != nil:
		c.Verdict, c.Found, c.Advice = wire.Warn, fmt.Sprintf("route %s: %v", route, err), "look again later; if it stays so, the name servers of the route's host are at fault"
	default:
		if !strings.Contains(route.String(), target.Addr().String()) {
			c.Found += ", " + target.String()
		}
		if owner, err := s.deps.Node.Directory().ByAddress(target.Addr()); err == nil && owner != "" {
			c.Found += fmt.Sprintf(" (fixed address of account %s)", owner)
		}
	}
	return c
}
