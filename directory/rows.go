package directory

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// The rows of this package. Presence has its own (presence.go).
//
//	A/<login>           Account
//	D/<domain>          Domain
//	d/<login>           number of the account's domains, no row for none
//	d/<login>/<domain>  empty: the domains of an account
//	a/<address>         login: whose fixed address it is
//	l/<local>           login: whose local part at the provider's domains it is,
//	                    logins and aliases alike, so that no two can collide
//	z/<seq, 8 bytes>    AuditRecord
const (
	accountRows = "A/"
	domainRows  = "D/"
	ownedRows   = "d/"
	addressRows = "a/"
	localRows   = "l/"
	auditRows   = "z/"
)

func accountKey(login mail.Login) []byte { return join(accountRows, string(login)) }
func domainKey(name mail.Domain) []byte  { return join(domainRows, string(name)) }
func localKey(local string) []byte       { return join(localRows, local) }

func ownedCountKey(login mail.Login) []byte { return join(ownedRows, string(login)) }

// ownedPrefix begins the index rows of one account; a login has no slash.
func ownedPrefix(login mail.Login) []byte { return append(ownedCountKey(login), '/') }

func ownedKey(login mail.Login, name mail.Domain) []byte {
	return append(ownedPrefix(login), name...)
}

func addressKey(a netip.Addr) []byte { return a.Unmap().AppendTo([]byte(addressRows)) }

func auditKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(auditRows), seq)
}

func join(prefix, rest string) []byte {
	key := make([]byte, 0, len(prefix)+len(rest)+1)
	return append(append(key, prefix...), rest...)
}

// row reads and decodes one row; nil: there is none.
func row[T any](r kv.Reader, key []byte) (*T, error) {
	v, err := r.Get(key)
	if err != nil || v == nil {
		return nil, err
	}
	return decode[T](key, v)
}

func decode[T any](key, value []byte) (*T, error) {
	out := new(T)
	if err := kv.Decode(value, out); err != nil {
		return nil, &mail.Error{Op: "directory", Kind: mail.Broken, Err: fmt.Errorf("row %q: %w", key, err)}
	}
	return out, nil
}

// owner reads an index row whose value is a login; empty: there is none.
func owner(r kv.Reader, key []byte) (mail.Login, error) {
	v, err := r.Get(key)
	return mail.Login(v), err
}

// ownedCount is the number of an account's domains.
func ownedCount(r kv.Reader, login mail.Login) (uint64, error) {
	v, err := r.Get(ownedCountKey(login))
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &mail.Error{Op: "directory", Kind: mail.Broken,
			Err: fmt.Errorf("row %q has %d bytes and must have 8", ownedCountKey(login), len(v))}
	}
	return binary.BigEndian.Uint64(v), nil
}

func setOwnedCount(tx kv.Tx, login mail.Login, n uint64) error {
	if n == 0 {
		return tx.Delete(ownedCountKey(login))
	}
	return tx.Set(ownedCountKey(login), binary.BigEndian.AppendUint64(nil, n))
}
