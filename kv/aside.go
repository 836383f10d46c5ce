package kv

import "bytes"

// AsidePrefix begins the keys of rows that were set aside; the key under which the
// row stood follows.
const AsidePrefix = "br/"

// Aside is a row that did not decode and was set aside, for somebody to look at.
type Aside struct {
	Key   string `cbor:"-"`          // where it stood
	At    int64  `cbor:"1,keyasint"` // when, in microseconds since 1970 (mail.Time)
	Why   string `cbor:"2,keyasint"`
	Value []byte `cbor:"3,keyasint"` // as it was
}

// asideWhy stands in every row that was set aside. What the decoder says is for the
// log alone: another build's says it otherwise, and rows must be alike on all
// nodes.
const asideWhy = "does not decode; the log of that time says more"

// SetAside moves a row out of the way as it is. Where there is none nothing
// happens.
func SetAside(tx Tx, key []byte, at int64) error {
	v, err := tx.Get(key)
	if err != nil || v == nil {
		return err
	}
	if err := tx.Delete(key); err != nil {
		return err
	}
	return tx.Set(append([]byte(AsidePrefix), key...), Encode(Aside{At: at, Why: asideWhy, Value: bytes.Clone(v)}))
}
