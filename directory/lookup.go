package directory

import (
	"fmt"
	"slices"
	"strings"

	"bsmtpd/mail"
)

// DestinationKind says whose mail an address is.
type DestinationKind uint8

// The kinds of destination.
const (
	Unknown       DestinationKind = iota // a domain that is not ours
	Customer                             // any address of a customer's domain (B8)
	Mailbox                              // login or alias at a domain of the provider (B9)
	NoSuchMailbox                        // a domain of the provider, and nobody's local part
)

// Destination is where mail for an address belongs.
type Destination struct {
	Kind    DestinationKind
	Account *Account // Customer, Mailbox; it may be inactive
	Domain  *Domain  // Customer
}

// maxTags bounds the look-ups that one address with many plus signs can cost.
const maxTags = 8

// Lookup says whose an address is. Local parts at the provider's domains are
// compared without case, and login+tag is the login's.
func (r Reader) Lookup(addr mail.Address) (Destination, error) {
	name := addr.Domain()
	if slices.Contains(r.Provider, name) {
		return r.lookupMailbox(addr)
	}
	d, err := r.Domain(name)
	if err != nil || d == nil {
		return Destination{}, err
	}
	a, err := r.owned(d.Login, "domain", string(name))
	if err != nil {
		return Destination{}, err
	}
	return Destination{Kind: Customer, Account: a, Domain: d}, nil
}

func (r Reader) lookupMailbox(addr mail.Address) (Destination, error) {
	local := strings.ToLower(unquote(addr.Local()))
	for range maxTags {
		login, err := owner(r.R, localKey(local))
		if err != nil {
			return Destination{}, err
		}
		if login != "" {
			a, err := r.owned(login, "local part", local)
			if err != nil {
				return Destination{}, err
			}
			return Destination{Kind: Mailbox, Account: a}, nil
		}
		// A login may itself have a plus sign, so the longest name wins.
		i := strings.LastIndexByte(local, '+')
		if i <= 0 {
			break
		}
		local = local[:i]
	}
	return Destination{Kind: NoSuchMailbox}, nil
}

// owned reads the account that an index row names.
func (r Reader) owned(login mail.Login, what, name string) (*Account, error) {
	a, err := r.Account(login)
	if err == nil && a == nil {
		err = &mail.Error{Op: "directory", Kind: mail.Broken,
			Err: fmt.Errorf("%s %s belongs to account %s, which does not exist", what, name, login)}
	}
	return a, err
}

// unquote gives the meaning of a quoted local part: "jansen" in quotes is jansen
// (RFC 5321 section 4.1.2).
func unquote(local string) string {
	if len(local) < 2 || local[0] != '"' {
		return local
	}
	var b strings.Builder
	escaped := false
	for _, c := range []byte(local[1 : len(local)-1]) {
		if c == '\\' && !escaped {
			escaped = true
			continue
		}
		escaped = false
		b.WriteByte(c)
	}
	return b.String()
}
