package directory

import (
	"bytes"
	"fmt"
	"strings"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// A row that does not decode must stop nothing but itself (C15). Presence and the
// counts of access servers only repeat what the access network says, and it says
// it again; so an event sets such a row aside (kv.SetAside) and begins it anew:
//
//	P/  as if the login had never been heard of. What its sessions counted for at
//	    their access servers stays counted there until their restart
//	p/  as after a restart of the access server, for how often it restarted is
//	    not known: its sessions are over, and each comes back with its next
//	    Interim-Update
//	A/  refused: it is what somebody configured. It can be written anew as a whole
//
// Whoever only reads passes over p/ and is told of P/ and A/. Every replica has
// the same bytes there. Bytes that only this disk lost are a *kv.Damage, and
// never set aside.

// undecodable reports an error about a row that is there and says nothing.
func undecodable(err error) bool { return mail.KindOf(err) == mail.Broken && !kv.IsDamage(err) }

// mender reads the rows of presence for an event.
type mender struct {
	tx   kv.Tx
	now  mail.Time
	told []string // what was damaged
}

func (m *mender) setAside(key []byte, why error) error {
	m.told = append(m.told, why.Error())
	return kv.SetAside(m.tx, key, int64(m.now))
}

// text is for Seen.Mended.
func (m *mender) text() string { return strings.Join(m.told, "; ") }

func (m *mender) presence(login mail.Login) (Presence, error) {
	p, err := row[Presence](m.tx, presenceKey(login))
	if undecodable(err) {
		err = m.setAside(presenceKey(login), err)
	}
	if err != nil || p == nil {
		return Presence{Login: login}, err
	}
	return *p, nil
}

func (m *mender) server(nas string) (accessServer, error) {
	s, err := readServer(m.tx, nas)
	if !undecodable(err) {
		return s, err
	}
	if err := m.setAside(serverKey(nas), err); err != nil {
		return s, err
	}
	// Microseconds are more than any number of restarts, so every session began
	// under a smaller count.
	s = accessServer{Boot: uint64(m.now), At: m.now}
	return s, s.write(m.tx, nas)
}

// passOver reads an access server's row for whoever changes nothing: of a damaged
// one no restart is known.
func passOver(r kv.Reader) func(nas string) (accessServer, error) {
	return func(nas string) (accessServer, error) {
		s, err := readServer(r, nas)
		if undecodable(err) {
			return accessServer{}, nil
		}
		return s, err
	}
}

// damagedAccount adds to an error about an account's row what to do.
func damagedAccount(login mail.Login, err error) error {
	if !undecodable(err) {
		return err
	}
	return &mail.Error{Op: "directory", Kind: mail.Broken,
		Err: fmt.Errorf("the row of account %s is damaged (%w); write the whole account anew: bsmtpd account import FILE, or PUT /api/v1/accounts/%s", login, err, login)}
}

// overwrite makes room for an account whose row is damaged: the row is set aside,
// and what the indexes say of it is dropped. It gives the version that the lost
// row counts as: no writer has seen that one or a greater one.
//
// Which index rows there are stood in the row alone, so all are looked at: of a
// million accounts that takes about a second.
func overwrite(tx kv.Tx, now mail.Time, login mail.Login) (version uint64, err error) {
	if err := kv.SetAside(tx, accountKey(login), int64(now)); err != nil {
		return 0, err
	}
	var stale [][]byte
	for _, prefix := range []string{addressRows, localRows} {
		for k, v := range tx.Scan([]byte(prefix), kv.PrefixEnd([]byte(prefix)), &err) {
			if mail.Login(v) == login {
				stale = append(stale, bytes.Clone(k))
			}
		}
		if err != nil {
			return 0, err
		}
	}
	for _, k := range stale {
		if err := tx.Delete(k); err != nil {
			return 0, err
		}
	}
	return uint64(now / 1_000_000), nil // seconds are more than any number of changes
}
