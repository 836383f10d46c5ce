package api

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

// body is the shape of most answers.
type body[T any] struct{ Body T }

// The parts of requests below are exported because huma fills in no others when
// they are embedded.

// LoginPath names an account.
type LoginPath struct {
	Login string `path:"login" doc:"login of the account"`
}

// Page says which stretch of a list is wanted.
type Page struct {
	After string `query:"after" doc:"cursor: go on after this row"`
	Limit int    `query:"limit" minimum:"0" doc:"at most so many rows; 0: all"`
}

func (s *Server) registerAccounts(a huma.API) {
	const tag = "accounts"
	register(a, call("GET", "/accounts", tag, "list-accounts", "All accounts, as JSON lines of Account", ScopeRead), s.listAccounts)
	add := call("POST", "/accounts", tag, "add-account", "Add an account", ScopeAdmin)
	add.DefaultStatus = 201
	register(a, add, s.addAccount)
	register(a, call("GET", "/accounts/{login}", tag, "get-account", "One account with its domains and use", ScopeRead), s.getAccount)
	register(a, call("PUT", "/accounts/{login}", tag, "put-account", "Add or replace an account", ScopeAdmin), s.putAccount)
	register(a, call("PATCH", "/accounts/{login}", tag, "set-account", "Change some fields of an account", ScopeAdmin), s.patchAccount)
	register(a, call("DELETE", "/accounts/{login}", tag, "remove-account", "Remove an account that has neither domains nor mail", ScopeAdmin), s.removeAccount)
}

func (s *Server) listAccounts(_ context.Context, in *Page) (*huma.StreamResponse, error) {
	dir := s.deps.Node.Directory()
	seq := func(errp *error) iter.Seq[directory.Account] { return accountsAfter(dir, mail.Login(in.After), errp) }
	return list(s, seq, in.Limit, func(a directory.Account) any { return accountOut(&a) }), nil
}

// accountsAfter gives the accounts after a login in pages.
func accountsAfter(dir directory.Reader, login mail.Login, errp *error) iter.Seq[directory.Account] {
	return pages(pageRows, func(after *directory.Account, err *error) iter.Seq[directory.Account] {
		if after == nil {
			return dir.Accounts(login, err)
		}
		return dir.Accounts(after.Login, err)
	}, errp)
}

func (s *Server) getAccount(_ context.Context, in *LoginPath) (*body[wire.AccountInfo], error) {
	login, err := loginOf(in.Login)
	if err != nil {
		return nil, err
	}
	dir := s.deps.Node.Directory()
	acct, err := dir.Account(login)
	if acct, err = found(acct, err, "account", login); err != nil {
		return nil, err
	}
	out := wire.AccountInfo{Account: accountOut(acct), Domains: []wire.Domain{}}
	domains, err := dir.DomainsOf(login)
	if err != nil {
		return nil, err
	}
	for _, d := range domains {
		out.Domains = append(out.Domains, domainOut(&d))
	}
	use, err := s.deps.Node.Quota().Of(login)
	if err != nil {
		return nil, err
	}
	_, limits := s.deps.Node.Settings()
	out.QuotaBytes, out.UsedBytes, out.Messages = limits.QuotaOf(acct), use.Bytes, use.Messages
	return &body[wire.AccountInfo]{out}, nil
}

func (s *Server) addAccount(ctx context.Context, in *struct{ Body wire.Account }) (*body[wire.Put], error) {
	acct, err := accountIn(&in.Body)
	if err != nil {
		return nil, err
	}
	return s.writeAccount(ctx, acct, 0)
}

func (s *Server) putAccount(ctx context.Context, in *struct {
	LoginPath
	Body wire.Account
}) (*body[wire.Put], error) {
	if !strings.EqualFold(string(in.Body.Login), in.Login) {
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("the path names account %s and the body %s; an account keeps its login", in.Login, in.Body.Login))
	}
	acct, err := accountIn(&in.Body)
	if err != nil {
		return nil, err
	}
	version := in.Body.Version
	if version == 0 {
		version = directory.AnyVersion
	}
	return s.writeAccount(ctx, acct, version)
}

func (s *Server) writeAccount(ctx context.Context, acct directory.Account, ifVersion uint64) (*body[wire.Put], error) {
	puts, err := s.deps.Node.PutAccounts(ctx, directory.PutAccounts{
		Items: []directory.PutAccount{{Account: acct, IfVersion: ifVersion}}, By: callerOf(ctx).Name})
	return putOut(puts, err)
}

func putOut(puts []directory.Put, err error) (*body[wire.Put], error) {
	if err == nil && len(puts) != 1 {
		err = fmt.Errorf("the node answered for %d items, and there was one", len(puts))
	}
	if err == nil {
		err = puts[0].Err()
	}
	if err != nil {
		return nil, err
	}
	return &body[wire.Put]{wire.Put{Version: puts[0].Version, Created: puts[0].Created}}, nil
}

// patchTries bounds how often a patch is made anew because somebody else changed
// the row in between.
const patchTries = 5

func (s *Server) patchAccount(ctx context.Context, in *struct {
	LoginPath
	Body wire.AccountPatch
}) (*body[wire.Put], error) {
	login, err := loginOf(in.Login)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		acct, err := s.deps.Node.Directory().Account(login)
		if acct, err = found(acct, err, "account", login); err != nil {
			return nil, err
		}
		version := acct.Version
		if err := patch(acct, &in.Body); err != nil {
			return nil, invalid(err)
		}
		checked, err := directory.CheckAccount(*acct)
		if err != nil {
			return nil, invalid(err)
		}
		out, err := s.writeAccount(ctx, checked, version)
		if mail.KindOf(err) != mail.Conflict || try == patchTries {
			return out, err
		}
	}
}

func patch(a *directory.Account, p *wire.AccountPatch) error {
	set(&a.Plan, p.Plan)
	set(&a.Contact, p.Contact)
	set(&a.Locale, p.Locale)
	set(&a.Access, p.Access)
	set(&a.Inactive, p.Inactive)
	if p.Quota != nil {
		a.Quota = *p.Quota
	}
	if p.Filtered != nil {
		a.Filtered = *p.Filtered
	}
	if p.Route != nil {
		route, err := directory.ParseRoute(*p.Route)
		if err != nil {
			return err
		}
		a.Route = route
	}
	if p.Addresses != nil {
		a.Addresses = nil
		p.AddAddresses = append(slices.Clone(*p.Addresses), p.AddAddresses...)
	}
	add, err := addressesIn(p.AddAddresses)
	if err != nil {
		return err
	}
	remove, err := addressesIn(p.RemoveAddresses)
	if err != nil {
		return err
	}
	a.Addresses = change(a.Addresses, add, remove)
	if p.Aliases != nil {
		a.Aliases = nil
		p.AddAliases = append(slices.Clone(*p.Aliases), p.AddAliases...)
	}
	a.Aliases = change(a.Aliases, lower(p.AddAliases), lower(p.RemoveAliases))
	return nil
}

// set changes a field that is given.
func set[T, U ~string](field *T, v *U) {
	if v != nil {
		*field = T(*v)
	}
}

func lower(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.ToLower(s))
	}
	return out
}

// change adds what is not there yet and takes away what is.
func change[T string | netip.Addr](list, add, remove []T) []T {
	list = slices.Clone(list)
	for _, v := range add {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return slices.DeleteFunc(list, func(v T) bool { return slices.Contains(remove, v) })
}

func (s *Server) removeAccount(ctx context.Context, in *LoginPath) (*struct{}, error) {
	login, err := loginOf(in.Login)
	if err != nil {
		return nil, err
	}
	return nil, s.deps.Node.RemoveAccount(ctx, directory.RemoveAccount{Login: login, By: callerOf(ctx).Name})
}
