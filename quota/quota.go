// Package quota decides how much an account may hold: the messages of its queue
// and of its mailbox together.
package quota

import (
	"fmt"
	"iter"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Usage is what an account holds now. Bytes are message sizes as stored,
// counted once per account.
type Usage struct {
	Bytes    int64 `cbor:"1,keyasint,omitempty"`
	Messages int64 `cbor:"2,keyasint,omitempty"`
}

const prefix = "u/"

func key(login mail.Login) []byte { return append([]byte(prefix), login...) }

// Of reads an account's usage; an account that holds nothing has no row.
func Of(r kv.Reader, login mail.Login) (Usage, error) {
	v, err := r.Get(key(login))
	if err != nil || v == nil {
		return Usage{}, err
	}
	var u Usage
	if err := kv.Decode(v, &u); err != nil {
		return Usage{}, &mail.Error{Op: "quota.Of", Kind: mail.Broken, Err: fmt.Errorf("usage of %s: %w", login, err)}
	}
	return u, nil
}

// Fits reports whether a message of size bytes may join what u counts under a
// limit. A limit is inclusive: an account may be filled to the last byte.
func Fits(u Usage, size, limit int64) bool { return size <= limit-u.Bytes }

// Charge adds a message to an account's usage if it fits, and reports whether it
// did. Nothing changes where it does not fit.
func Charge(tx kv.Tx, login mail.Login, size, limit int64) (bool, error) {
	u, err := Of(tx, login)
	if err != nil {
		return false, err
	}
	if !Fits(u, size, limit) {
		return false, nil
	}
	return true, put(tx, login, Usage{u.Bytes + size, u.Messages + 1})
}

// Refund takes messages off an account's usage. Taking off more than there is
// means that rows contradict each other: an error, and nothing changes.
func Refund(tx kv.Tx, login mail.Login, bytes, messages int64) error {
	u, err := Of(tx, login)
	if err != nil {
		return err
	}
	u.Bytes -= bytes
	u.Messages -= messages
	if u.Bytes < 0 || u.Messages < 0 || u.Messages == 0 && u.Bytes != 0 {
		return &mail.Error{Op: "quota.Refund", Kind: mail.Broken,
			Err: fmt.Errorf("account %s would hold %d messages of %d bytes after a refund of %d messages of %d bytes",
				login, u.Messages, u.Bytes, messages, bytes)}
	}
	return put(tx, login, u)
}

// Set replaces an account's usage by what was counted.
func Set(tx kv.Tx, login mail.Login, u Usage) error { return put(tx, login, u) }

func put(tx kv.Tx, login mail.Login, u Usage) error {
	if u == (Usage{}) {
		return tx.Delete(key(login))
	}
	return tx.Set(key(login), kv.Encode(u))
}

// Reader reads usage for those who decide nothing.
type Reader struct{ R kv.Reader }

// Of is the function Of on the reader's rows.
func (r Reader) Of(login mail.Login) (Usage, error) { return Of(r.R, login) }

// All gives the usage of every account that holds mail, in order of login. A row
// that does not decode is passed over, and *err then says so at the end.
func (r Reader) All(err *error) iter.Seq2[mail.Login, Usage] {
	return func(yield func(mail.Login, Usage) bool) {
		var broken error
		for k, v := range r.R.Scan([]byte(prefix), kv.PrefixEnd([]byte(prefix)), err) {
			login := mail.Login(k[len(prefix):])
			var u Usage
			if derr := kv.Decode(v, &u); derr != nil {
				broken = &mail.Error{Op: "quota.All", Kind: mail.Broken, Err: fmt.Errorf("usage of %s: %w", login, derr)}
				continue
			}
			if !yield(login, u) {
				return
			}
		}
		if *err == nil {
			*err = broken
		}
	}
}
