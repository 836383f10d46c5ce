package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"bsmtpd/mail"
)

// Bounds of an account's fields.
const (
	MaxInactiveBytes = 500
	MaxQuota         = int64(1) << 50
)

// CheckAccount gives an account in its canonical form, in which rows are kept and
// compared: login, contact's domain, aliases and route in lower case, addresses
// unmapped, plan and locale filled in. The error says which field is wrong.
// What depends on other accounts is checked when it is applied.
func CheckAccount(a Account) (Account, error) {
	login, err := mail.ParseLogin(string(a.Login))
	if err != nil {
		return a, err
	}
	a.Login = login
	if a.Addresses, err = checkAddresses(a.Addresses); err != nil {
		return a, err
	}
	if a.Aliases, err = checkAliases(a.Login, a.Aliases); err != nil {
		return a, err
	}
	if a.Route, err = checkRoute(a.Route); err != nil {
		return a, err
	}
	if a.Contact != "" {
		if a.Contact, err = mail.ParseAddress(string(a.Contact)); err != nil {
			return a, fmt.Errorf("contact: %w", err)
		}
	}
	if a.Quota < 0 || a.Quota > MaxQuota {
		return a, fmt.Errorf("quota of %d bytes is not allowed; use 0 for the default, or up to %s", a.Quota, mail.Size(MaxQuota))
	}
	if err := checkReason(a.Inactive); err != nil {
		return a, err
	}
	return checkWords(a)
}

// checkWords checks the fields that take a word of a fixed list.
func checkWords(a Account) (Account, error) {
	switch a.Plan {
	case "":
		a.Plan = PlanFree
	case PlanFree, PlanPaid:
	default:
		return a, fmt.Errorf("plan %q is unknown; use free or paid", a.Plan)
	}
	switch a.Locale {
	case "":
		a.Locale = LocaleEN
	case LocaleEN, LocaleNL:
	default:
		return a, fmt.Errorf("locale %q is unknown; use en or nl", a.Locale)
	}
	switch a.Access {
	case "", AccessDialup, AccessISDN, AccessADSL:
	default:
		return a, fmt.Errorf("access %q is unknown; use dialup, isdn or adsl", a.Access)
	}
	return a, nil
}

func checkAddresses(in []netip.Addr) ([]netip.Addr, error) {
	if len(in) > MaxAddresses {
		return nil, fmt.Errorf("%d fixed addresses are more than %d", len(in), MaxAddresses)
	}
	var out []netip.Addr
	for _, a := range in {
		a = a.Unmap()
		switch {
		case !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast():
			return nil, fmt.Errorf("%q cannot be a fixed address of a customer", a)
		case slices.Contains(out, a):
			return nil, fmt.Errorf("fixed address %s is given twice", a)
		}
		out = append(out, a)
	}
	return out, nil
}

func checkAliases(login mail.Login, in []string) ([]string, error) {
	if len(in) > MaxAliases {
		return nil, fmt.Errorf("%d aliases are more than %d", len(in), MaxAliases)
	}
	var out []string
	for _, s := range in {
		s = strings.ToLower(s)
		if strings.HasPrefix(s, `"`) {
			return nil, fmt.Errorf("alias %s: write it without quotes; local parts that need them are not supported", s)
		}
		// ParseAddress knows which local parts are legal.
		if _, err := mail.ParseAddress(s + "@x"); err != nil {
			return nil, fmt.Errorf("alias %q is not the local part of an address: %w", s, err)
		}
		switch {
		case s == string(login):
			return nil, fmt.Errorf("alias %s is the account's login, which takes mail anyway", s)
		case slices.Contains(out, s):
			return nil, fmt.Errorf("alias %s is given twice", s)
		}
		out = append(out, s)
	}
	return out, nil
}

func checkReason(s string) error {
	if len(s) > MaxInactiveBytes {
		return fmt.Errorf("the reason for being inactive has %d bytes, more than %d", len(s), MaxInactiveBytes)
	}
	// It is spoken in SMTP replies, where a line break would end the reply.
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("the reason for being inactive must be one line of UTF-8 text")
	}
	return nil
}

// CheckDomain gives a domain in its canonical form, or says what is wrong.
func CheckDomain(d Domain) (Domain, error) {
	name, err := mail.ParseDomain(string(d.Name))
	if err != nil {
		return d, err
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return d, fmt.Errorf("domain %q: write international labels in their ASCII form (xn--...)", name)
		}
	}
	d.Name = name
	if d.Login, err = mail.ParseLogin(string(d.Login)); err != nil {
		return d, fmt.Errorf("domain %s: %w", name, err)
	}
	if d.Route, err = checkRoute(d.Route); err != nil {
		return d, fmt.Errorf("domain %s: %w", name, err)
	}
	return d, nil
}
