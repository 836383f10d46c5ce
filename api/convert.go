package api

import (
	"fmt"
	"net/netip"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func accountOut(a *directory.Account) wire.Account {
	out := wire.Account{
		Login: a.Login, Plan: string(a.Plan), Quota: a.Quota, Contact: a.Contact, Locale: string(a.Locale), Access: string(a.Access),
		Inactive: a.Inactive, Route: a.Route.String(), Aliases: a.Aliases, Filtered: a.Filtered,
		Created: a.Created.Std(), Changed: a.Changed.Std(), Version: a.Version,
	}
	for _, ip := range a.Addresses {
		out.Addresses = append(out.Addresses, ip.String())
	}
	return out
}

// accountIn reads and checks an account; the error is mail.Invalid.
func accountIn(w *wire.Account) (directory.Account, error) {
	a := directory.Account{
		Login: w.Login, Plan: directory.Plan(w.Plan), Quota: w.Quota, Contact: w.Contact, Locale: directory.Locale(w.Locale),
		Access: directory.Access(w.Access), Inactive: w.Inactive, Aliases: w.Aliases, Filtered: w.Filtered,
	}
	var err error
	if a.Addresses, err = addressesIn(w.Addresses); err != nil {
		return a, invalid(err)
	}
	if a.Route, err = directory.ParseRoute(w.Route); err != nil {
		return a, invalid(err)
	}
	if a, err = directory.CheckAccount(a); err != nil {
		return a, invalid(err)
	}
	return a, nil
}

func addressesIn(list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range list {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address", s)
		}
		out = append(out, ip.Unmap())
	}
	return out, nil
}

func domainOut(d *directory.Domain) wire.Domain {
	return wire.Domain{Name: d.Name, Login: d.Login, Route: d.Route.String(), Created: d.Created.Std(), Changed: d.Changed.Std(), Version: d.Version}
}

func domainIn(w *wire.Domain) (directory.Domain, error) {
	d := directory.Domain{Name: w.Name, Login: w.Login}
	var err error
	if d.Route, err = directory.ParseRoute(w.Route); err != nil {
		return d, invalid(err)
	}
	if d, err = directory.CheckDomain(d); err != nil {
		return d, invalid(err)
	}
	return d, nil
}

func holdOut(h *spool.Hold) *wire.Hold {
	if h == nil {
		return nil
	}
	return &wire.Hold{By: h.By, Reason: h.Reason, At: h.At.Std(), Until: h.Until.Std()}
}

// loginOf reads a login from a path or query.
func loginOf(s string) (mail.Login, error) {
	login, err := mail.ParseLogin(s)
	if err != nil {
		return "", invalid(err)
	}
	return login, nil
}

func domainNameOf(s string) (mail.Domain, error) {
	name, err := mail.ParseDomain(s)
	if err != nil {
		return "", invalid(err)
	}
	return name, nil
}

// found gives NotFound for what a reader did not find.
func found[T any](v *T, err error, what string, name any) (*T, error) {
	if err == nil && v == nil {
		err = mail.Fail(mail.NotFound, fmt.Sprintf("there is no %s %v", what, name))
	}
	return v, err
}
