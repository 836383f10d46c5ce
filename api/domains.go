package api

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

// DomainPath names a domain.
type DomainPath struct {
	Domain string `path:"domain"`
}

func (s *Server) registerDomains(a huma.API) {
	const tag = "domains"
	register(a, call("GET", "/domains", tag, "list-domains", "All domains, or those of one account, as JSON lines of Domain", ScopeRead), s.listDomains)
	add := call("POST", "/domains", tag, "add-domain", "Add a domain", ScopeAdmin)
	add.DefaultStatus = 201
	register(a, add, s.addDomain)
	register(a, call("GET", "/domains/{domain}", tag, "get-domain", "One domain", ScopeRead), s.getDomain)
	register(a, call("PUT", "/domains/{domain}", tag, "put-domain", "Add or replace a domain", ScopeAdmin), s.putDomain)
	register(a, call("PATCH", "/domains/{domain}", tag, "set-domain", "Change some fields of a domain", ScopeAdmin), s.patchDomain)
	register(a, call("DELETE", "/domains/{domain}", tag, "remove-domain", "Remove a domain; its queued mail stays with the account", ScopeAdmin), s.removeDomain)
	register(a, call("GET", "/domains/{domain}/check", tag, "check-domain", "Do the domain's MX records point here, and where does its mail go?", ScopeRead), s.checkDomain)
}

func (s *Server) listDomains(_ context.Context, in *struct {
	Page
	Account string `query:"account" doc:"only those of this account"`
}) (*huma.StreamResponse, error) {
	dir := s.deps.Node.Directory()
	row := func(d directory.Domain) any { return domainOut(&d) }
	if in.Account != "" {
		login, err := loginOf(in.Account)
		if err != nil {
			return nil, err
		}
		acct, err := dir.Account(login)
		if _, err = found(acct, err, "account", login); err != nil {
			return nil, err
		}
		domains, err := dir.DomainsOf(login)
		if err != nil {
			return nil, err
		}
		domains = slices.DeleteFunc(domains, func(d directory.Domain) bool { return string(d.Name) <= in.After })
		return list(s, func(*error) iter.Seq[directory.Domain] { return slices.Values(domains) }, in.Limit, row), nil
	}
	seq := func(errp *error) iter.Seq[directory.Domain] {
		return pages(pageRows, func(after *directory.Domain, err *error) iter.Seq[directory.Domain] {
			if after == nil {
				return dir.Domains(mail.Domain(in.After), err)
			}
			return dir.Domains(after.Name, err)
		}, errp)
	}
	return list(s, seq, in.Limit, row), nil
}

func (s *Server) getDomain(_ context.Context, in *DomainPath) (*body[wire.Domain], error) {
	d, err := s.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	return &body[wire.Domain]{domainOut(d)}, nil
}

func (s *Server) domain(name string) (*directory.Domain, error) {
	n, err := domainNameOf(name)
	if err != nil {
		return nil, err
	}
	d, err := s.deps.Node.Directory().Domain(n)
	return found(d, err, "domain", n)
}

func (s *Server) addDomain(ctx context.Context, in *struct{ Body wire.Domain }) (*body[wire.Put], error) {
	d, err := domainIn(&in.Body)
	if err != nil {
		return nil, err
	}
	return s.writeDomain(ctx, d, 0)
}

func (s *Server) putDomain(ctx context.Context, in *struct {
	DomainPath
	Body wire.Domain
}) (*body[wire.Put], error) {
	if !strings.EqualFold(strings.TrimSuffix(string(in.Body.Name), "."), strings.TrimSuffix(in.Domain, ".")) {
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("the path names domain %s and the body %s", in.Domain, in.Body.Name))
	}
	d, err := domainIn(&in.Body)
	if err != nil {
		return nil, err
	}
	version := in.Body.Version
	if version == 0 {
		version = directory.AnyVersion
	}
	return s.writeDomain(ctx, d, version)
}

func (s *Server) writeDomain(ctx context.Context, d directory.Domain, ifVersion uint64) (*body[wire.Put], error) {
	if slices.Contains(s.deps.Node.Directory().Provider, d.Name) {
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("domain %s is the provider's own: its mail goes to mailboxes and it cannot belong to an account", d.Name))
	}
	puts, err := s.deps.Node.PutDomains(ctx, directory.PutDomains{
		Items: []directory.PutDomain{{Domain: d, IfVersion: ifVersion}}, By: callerOf(ctx).Name})
	return putOut(puts, err)
}

func (s *Server) patchDomain(ctx context.Context, in *struct {
	DomainPath
	Body wire.DomainPatch
}) (*body[wire.Put], error) {
	for try := 1; ; try++ {
		d, err := s.domain(in.Domain)
		if err != nil {
			return nil, err
		}
		version := d.Version
		if in.Body.Login != nil {
			d.Login = *in.Body.Login
		}
		if in.Body.Route != nil {
			if d.Route, err = directory.ParseRoute(*in.Body.Route); err != nil {
				return nil, invalid(err)
			}
		}
		checked, err := directory.CheckDomain(*d)
		if err != nil {
			return nil, invalid(err)
		}
		out, err := s.writeDomain(ctx, checked, version)
		if mail.KindOf(err) != mail.Conflict || try == patchTries {
			return out, err
		}
	}
}

func (s *Server) removeDomain(ctx context.Context, in *DomainPath) (*struct{}, error) {
	name, err := domainNameOf(in.Domain)
	if err != nil {
		return nil, err
	}
	return nil, s.deps.Node.RemoveDomain(ctx, directory.RemoveDomain{Name: name, By: callerOf(ctx).Name})
}
