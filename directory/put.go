package directory

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Apply writes the accounts. A failed item is a Put; the error is one of the disk.
// An account whose row is damaged can be written with AnyVersion only.
func (c PutAccounts) Apply(tx kv.Tx, now mail.Time) ([]Put, error) {
	if len(c.Items) > MaxBatch {
		return tooMany(len(c.Items)), nil
	}
	log := auditLog{tx: tx, now: now, by: c.By}
	puts := make([]Put, len(c.Items))
	for i, it := range c.Items {
		var err error
		if puts[i], err = putAccount(tx, now, &log, it); err != nil {
			return nil, err
		}
	}
	return puts, nil
}

func putAccount(tx kv.Tx, now mail.Time, log *auditLog, it PutAccount) (Put, error) {
	a, err := CheckAccount(it.Account)
	if err != nil {
		return failed(mail.Invalid, "account %s: %v", it.Account.Login, err), nil
	}
	old, damaged := Reader{R: tx}.Account(a.Login)
	if damaged != nil && !undecodable(damaged) {
		return Put{}, damaged
	}
	var have uint64
	switch {
	case damaged != nil && it.IfVersion != AnyVersion:
		return failed(mail.Broken, "%v", damaged), nil
	case old != nil:
		have = old.Version
	}
	if p := checkVersion("account", string(a.Login), it.IfVersion, have); p.Text != "" {
		return p, nil
	}
	if p, err := checkTaken(tx, &a); err != nil || p.Text != "" {
		return p, err
	}
	if damaged != nil {
		if have, err = overwrite(tx, now, a.Login); err != nil {
			return Put{}, err
		}
	}
	a.Created, a.Changed, a.Version = now, now, have+1
	if old != nil {
		a.Created = old.Created
		if sameAccount(a, *old) {
			return Put{Version: have}, nil
		}
	}
	if err := indexAccount(tx, old, &a); err != nil {
		return Put{}, err
	}
	if err := tx.Set(accountKey(a.Login), kv.Encode(a)); err != nil {
		return Put{}, err
	}
	return Put{Version: a.Version, Created: old == nil}, log.change("account", string(a.Login), old, &a)
}

// sameAccount compares what a person can set.
func sameAccount(a, b Account) bool {
	a.Changed, a.Version = b.Changed, b.Version
	return reflect.DeepEqual(a, b)
}

// checkTaken refuses names and addresses that belong to another account.
func checkTaken(tx kv.Tx, a *Account) (Put, error) {
	other, err := owner(tx, localKey(string(a.Login)))
	if err != nil {
		return Put{}, err
	}
	if other != "" && other != a.Login {
		return failed(mail.Exists, "account %s: the login is an alias of account %s", a.Login, other), nil
	}
	for _, s := range a.Aliases {
		other, err := owner(tx, localKey(s))
		if err != nil {
			return Put{}, err
		}
		if other != "" && other != a.Login {
			return failed(mail.Exists, "account %s: alias %s belongs to account %s", a.Login, s, other), nil
		}
	}
	for _, ip := range a.Addresses {
		other, err := owner(tx, addressKey(ip))
		if err != nil {
			return Put{}, err
		}
		if other != "" && other != a.Login {
			return failed(mail.Exists, "account %s: address %s belongs to account %s; an address has one owner", a.Login, ip, other), nil
		}
	}
	return Put{}, nil
}

// indexAccount brings the index rows from old to a; either may be nil.
func indexAccount(tx kv.Tx, old, a *Account) error {
	var login mail.Login
	var before, after []string
	var ipBefore, ipAfter []netip.Addr
	if old != nil {
		login, before, ipBefore = old.Login, locals(old), old.Addresses
	}
	if a != nil {
		login, after, ipAfter = a.Login, locals(a), a.Addresses
	}
	if err := index(tx, login, before, after, localKey); err != nil {
		return err
	}
	return index(tx, login, ipBefore, ipAfter, addressKey)
}

func locals(a *Account) []string { return append([]string{string(a.Login)}, a.Aliases...) }

func index[T comparable](tx kv.Tx, login mail.Login, before, after []T, key func(T) []byte) error {
	for _, v := range before {
		if !slices.Contains(after, v) {
			if err := tx.Delete(key(v)); err != nil {
				return err
			}
		}
	}
	for _, v := range after {
		if !slices.Contains(before, v) {
			if err := tx.Set(key(v), []byte(login)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Apply writes the domains, in the manner of PutAccounts.Apply.
func (c PutDomains) Apply(tx kv.Tx, now mail.Time) ([]Put, error) {
	if len(c.Items) > MaxBatch {
		return tooMany(len(c.Items)), nil
	}
	log := auditLog{tx: tx, now: now, by: c.By}
	puts := make([]Put, len(c.Items))
	for i, it := range c.Items {
		var err error
		if puts[i], err = putDomain(tx, now, &log, it); err != nil {
			return nil, err
		}
	}
	return puts, nil
}

func putDomain(tx kv.Tx, now mail.Time, log *auditLog, it PutDomain) (Put, error) {
	d, err := CheckDomain(it.Domain)
	if err != nil {
		return failed(mail.Invalid, "%v", err), nil
	}
	old, err := row[Domain](tx, domainKey(d.Name))
	if err != nil {
		return Put{}, err
	}
	var have uint64
	if old != nil {
		have = old.Version
	}
	if p := checkVersion("domain", string(d.Name), it.IfVersion, have); p.Text != "" {
		return p, nil
	}
	account, err := tx.Get(accountKey(d.Login))
	if err != nil {
		return Put{}, err
	}
	if account == nil {
		return failed(mail.NotFound, "domain %s: there is no account %s; add it first", d.Name, d.Login), nil
	}
	d.Created, d.Changed, d.Version = now, now, have+1
	if old != nil {
		d.Created = old.Created
		if d.Login == old.Login && d.Route == old.Route {
			return Put{Version: have}, nil
		}
	}
	if p, err := own(tx, old, &d); err != nil || p.Text != "" {
		return p, err
	}
	if err := tx.Set(domainKey(d.Name), kv.Encode(d)); err != nil {
		return Put{}, err
	}
	return Put{Version: d.Version, Created: old == nil}, log.change("domain", string(d.Name), old, &d)
}

// own moves a domain's index row and counts from old to d; either may be nil.
func own(tx kv.Tx, old, d *Domain) (Put, error) {
	if old != nil && d != nil && old.Login == d.Login {
		return Put{}, nil
	}
	if d != nil {
		n, err := ownedCount(tx, d.Login)
		if err != nil {
			return Put{}, err
		}
		if n >= MaxDomains {
			return failed(mail.Limit, "domain %s: account %s has %d domains, the most there may be", d.Name, d.Login, n), nil
		}
		if err := tx.Set(ownedKey(d.Login, d.Name), nil); err != nil {
			return Put{}, err
		}
		if err := setOwnedCount(tx, d.Login, n+1); err != nil {
			return Put{}, err
		}
	}
	if old == nil {
		return Put{}, nil
	}
	n, err := ownedCount(tx, old.Login)
	if err != nil {
		return Put{}, err
	}
	if n == 0 {
		return Put{}, &mail.Error{Op: "directory", Kind: mail.Broken,
			Err: fmt.Errorf("account %s owns domain %s and its count of domains is 0", old.Login, old.Name)}
	}
	if err := tx.Delete(ownedKey(old.Login, old.Name)); err != nil {
		return Put{}, err
	}
	return Put{}, setOwnedCount(tx, old.Login, n-1)
}

// Apply removes the account, its index rows and presence. NotFound, or Conflict where
// domains are left.
func (c RemoveAccount) Apply(tx kv.Tx, now mail.Time) error {
	old, err := Reader{R: tx}.Account(c.Login)
	if err != nil {
		return err
	}
	if old == nil {
		return noAccount(c.Login)
	}
	n, err := ownedCount(tx, c.Login)
	if err != nil {
		return err
	}
	if n > 0 {
		return mail.Fail(mail.Conflict, fmt.Sprintf("account %s still has domains (%d); remove them, or give them to another account, first", c.Login, n))
	}
	if err := indexAccount(tx, old, nil); err != nil {
		return err
	}
	if err := tx.Delete(accountKey(c.Login)); err != nil {
		return err
	}
	if err := forgetPresence(tx, now, c.Login); err != nil {
		return err
	}
	log := auditLog{tx: tx, now: now, by: c.By}
	return log.change("account", string(c.Login), old, (*Account)(nil))
}

// Apply removes the domain and its index row; NotFound where there is none.
func (c RemoveDomain) Apply(tx kv.Tx, now mail.Time) error {
	old, err := row[Domain](tx, domainKey(c.Name))
	if err != nil {
		return err
	}
	if old == nil {
		return noDomain(c.Name)
	}
	if _, err := own(tx, old, nil); err != nil {
		return err
	}
	if err := tx.Delete(domainKey(c.Name)); err != nil {
		return err
	}
	log := auditLog{tx: tx, now: now, by: c.By}
	return log.change("domain", string(c.Name), old, (*Domain)(nil))
}

func noAccount(login mail.Login) error {
	return mail.Fail(mail.NotFound, fmt.Sprintf("there is no account %s", login))
}

func noDomain(name mail.Domain) error {
	return mail.Fail(mail.NotFound, fmt.Sprintf("there is no domain %s", name))
}

// checkVersion compares the version that a writer expects with the one there is;
// 0 is none in both.
func checkVersion(what, name string, want, have uint64) Put {
	switch {
	case want == AnyVersion || want == have:
		return Put{}
	case want == 0:
		return failed(mail.Exists, "%s %s is there already (version %d); to change it: %s set %s", what, name, have, what, name)
	case have == 0:
		return failed(mail.NotFound, "there is no %s %s", what, name)
	}
	return failed(mail.Conflict, "%s %s was changed by somebody else: it has version %d, not %d; read it again", what, name, have, want)
}

func failed(kind mail.Kind, format string, args ...any) Put {
	return Put{Kind: uint8(kind), Text: fmt.Sprintf(format, args...)}
}

func tooMany(n int) []Put {
	puts := make([]Put, n)
	for i := range puts {
		puts[i] = failed(mail.Limit, "%d items in one command are more than %d", n, MaxBatch)
	}
	return puts
}
