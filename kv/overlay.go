package kv

import (
	"bytes"
	"iter"
	"sort"
)

// Overlay is a Tx on top of another, which Apply passes on to it and Discard
// forgets. A command that fails half-way leaves nothing behind that way, while
// the commands before it in the same batch stay.
type Overlay struct {
	base Tx
	rows map[string][]byte // nil: deleted
}

var _ Tx = (*Overlay)(nil)

// NewOverlay begins a change on top of base.
func NewOverlay(base Tx) *Overlay { return &Overlay{base: base, rows: map[string][]byte{}} }

// Set implements Tx. Unlike a Batch it keeps value: do not change it afterwards.
func (o *Overlay) Set(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	o.rows[string(key)] = value
	return nil
}

// Delete implements Tx.
func (o *Overlay) Delete(key []byte) error {
	o.rows[string(key)] = nil
	return nil
}

// Apply passes the change on to the base, in order of keys, and begins anew.
func (o *Overlay) Apply() error {
	for _, k := range o.sorted(nil, nil) {
		var err error
		if v := o.rows[k]; v != nil {
			err = o.base.Set([]byte(k), v)
		} else {
			err = o.base.Delete([]byte(k))
		}
		if err != nil {
			return err
		}
	}
	o.Discard()
	return nil
}

// Discard forgets the change and begins anew.
func (o *Overlay) Discard() { clear(o.rows) }

// Get implements Reader.
func (o *Overlay) Get(key []byte) ([]byte, error) {
	if v, ok := o.rows[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	return o.base.Get(key)
}

// sorted gives the changed keys in a range; nil bounds are open.
func (o *Overlay) sorted(lower, upper []byte) []string {
	keys := make([]string, 0, len(o.rows))
	for k := range o.rows { // order does not matter: sorted below
		if (lower == nil || k >= string(lower)) && (upper == nil || k < string(upper)) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}

// Scan implements Reader: the base's rows with the changes at the first step
// merged in.
func (o *Overlay) Scan(lower, upper []byte, err *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		mine := o.sorted(lower, upper)
		values := make([][]byte, len(mine))
		for i, k := range mine {
			values[i] = o.rows[k]
		}
		i := 0
		for k, v := range o.base.Scan(lower, upper, err) {
			for ; i < len(mine) && mine[i] < string(k); i++ {
				if values[i] != nil && !yield([]byte(mine[i]), values[i]) {
					return
				}
			}
			if i < len(mine) && mine[i] == string(k) {
				v = values[i]
				i++
				if v == nil {
					continue
				}
			}
			if !yield(k, v) {
				return
			}
		}
		for ; *err == nil && i < len(mine); i++ {
			if values[i] != nil && !yield([]byte(mine[i]), values[i]) {
				return
			}
		}
	}
}

// Last implements Reader.
func (o *Overlay) Last(lower, upper []byte) ([]byte, []byte, error) {
	var mine string
	found := false
	for k, v := range o.rows { // order does not matter: the greatest is taken
		if v != nil && k >= string(lower) && k < string(upper) && k >= mine {
			mine, found = k, true
		}
	}
	k, v, err := o.base.Last(lower, upper)
	for err == nil && k != nil && o.deleted(k) {
		k, v, err = o.base.Last(lower, k)
	}
	if err == nil && found && mine >= string(k) {
		return []byte(mine), bytes.Clone(o.rows[mine]), nil
	}
	return k, v, err
}

func (o *Overlay) deleted(key []byte) bool {
	v, ok := o.rows[string(key)]
	return ok && v == nil
}
