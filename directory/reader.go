package directory

import (
	"iter"
	"net/netip"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Reader reads the directory. It sees the newest applied state at each call; wrap
// a kv.Snapshot for one unchanging state over several. Errors are those of the
// disk, or mail.Broken for a row that does not decode; a sequence passes over such
// a row and sets the error at its end.
type Reader struct {
	R        kv.Reader
	Provider []mail.Domain // the provider's own mail domains: mail there is for mailboxes
}

// Account reads one account; nil: there is none.
func (r Reader) Account(login mail.Login) (*Account, error) {
	a, err := row[Account](r.R, accountKey(login))
	return a, damagedAccount(login, err)
}

// Accounts gives the accounts after a login, in order of login.
func (r Reader) Accounts(after mail.Login, err *error) iter.Seq[Account] {
	return rowsAfter[Account](r.R, accountRows, string(after), err)
}

// Domain reads one domain; nil: there is none.
func (r Reader) Domain(name mail.Domain) (*Domain, error) {
	return row[Domain](r.R, domainKey(name))
}

// Domains gives the domains after a name, in order of name.
func (r Reader) Domains(after mail.Domain, err *error) iter.Seq[Domain] {
	return rowsAfter[Domain](r.R, domainRows, string(after), err)
}

// DomainsOf gives the domains of an account in order of name, at most MaxDomains.
func (r Reader) DomainsOf(login mail.Login) ([]Domain, error) {
	var out []Domain
	var err error
	prefix := ownedPrefix(login)
	for k := range r.R.Scan(prefix, kv.PrefixEnd(prefix), &err) {
		name := mail.Domain(k[len(prefix):])
		d, err := r.Domain(name)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue // removed since the scan began
		}
		out = append(out, *d)
	}
	return out, err
}

// ByAddress is the account that a fixed address belongs to; empty: nobody's.
func (r Reader) ByAddress(a netip.Addr) (mail.Login, error) {
	if !a.IsValid() {
		return "", nil
	}
	return owner(r.R, addressKey(a))
}

// rowsAfter decodes the rows of a prefix whose rest is greater than after. A row
// that does not decode is passed over, and told at the end.
func rowsAfter[T any](r kv.Reader, prefix, after string, errp *error) iter.Seq[T] {
	return func(yield func(T) bool) {
		lower := join(prefix, after)
		if after != "" {
			lower = append(lower, 0) // the least key that is greater
		}
		var broken error
		for k, v := range r.Scan(lower, kv.PrefixEnd([]byte(prefix)), errp) {
			t, err := decode[T](k, v)
			if err != nil {
				broken = err
				continue
			}
			if !yield(*t) {
				break
			}
		}
		if *errp == nil {
			*errp = broken
		}
	}
}
