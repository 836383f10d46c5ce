package spool

import (
	"encoding/binary"
	"fmt"
	"iter"

	"bsmtpd/mail"
)

// Reading across queues: one walk through the messages of all, where opening each
// queue by itself would cost more than reading it.

// Arrival is what Arrivals tells of a message.
type Arrival struct {
	Item
	Arrived   mail.Time
	Held      bool      // it has a hold of its own
	HeldUntil mail.Time // 0: until somebody lifts it
}

// Across gives the messages of all queues after one, in order of queue name and
// then of arrival. Item{Queue: q} stands before the first of q, the zero Item
// before all. A row that does not decode is passed over, and *err then says so at
// the end.
func (r Reader) Across(after Item, err *error) iter.Seq[Message] {
	return across(r, after, err, decodeMessage)
}

// Arrivals is Across for who wants to know no more than age and hold: a tenth of
// the work.
func (r Reader) Arrivals(after Item, err *error) iter.Seq[Arrival] {
	return across(r, after, err, decodeArrival)
}

func across[T any](r Reader, from Item, err *error, decode func(QueueName, mail.ID, []byte) (T, error)) iter.Seq[T] {
	return func(yield func(T) bool) {
		lower, upper := prefixRange([]byte(messagePrefix))
		if from.Queue != "" {
			lower = after(messageKey(from.Queue, from.ID))
		}
		var broken error
		var queue QueueName // of the last row: most rows have the same one
		for k, v := range r.R.Scan(lower, upper, err) {
			name, id, kerr := cutMessageKey(k)
			if kerr != nil {
				broken = kerr
				continue
			}
			if string(name) != string(queue) {
				queue = QueueName(name)
			}
			row, derr := decode(queue, id, v)
			if derr != nil {
				broken = derr
				continue
			}
			if !yield(row) {
				break
			}
		}
		if *err == nil {
			*err = broken
		}
	}
}

func cutMessageKey(k []byte) (queue []byte, id mail.ID, err error) {
	end := len(k) - 9 // NUL and ID
	if end < len(messagePrefix) || k[end] != 0 {
		return nil, 0, brokenRow("the key of a message", fmt.Errorf("%q is not QUEUE, NUL and ID", k))
	}
	return k[len(messagePrefix):end], mail.ID(binary.BigEndian.Uint64(k[end+1:])), nil
}

// The keys of the rows' CBOR that decodeArrival looks for.
const (
	arrivedField = 8  // Message.Arrived
	holdField    = 12 // Message.Hold
	untilField   = 4  // Hold.Until
)

// decodeArrival takes the two fields out of a message's row and passes over the
// rest. What is not in the form that kv.Encode writes is decoded in full, which
// finds the damage.
func decodeArrival(queue QueueName, id mail.ID, v []byte) (Arrival, error) {
	a := Arrival{Item: Item{Queue: queue, ID: id}}
	ok := eachField(v, func(field uint64, value []byte) bool {
		switch field {
		case arrivedField:
			return cutTime(value, &a.Arrived)
		case holdField:
			a.Held = true
			return eachField(value, func(field uint64, value []byte) bool {
				return field != untilField || cutTime(value, &a.HeldUntil)
			})
		}
		return true
	})
	if ok && a.Arrived != 0 {
		return a, nil
	}
	m, err := decodeMessage(queue, id, v)
	a.Arrived, a.Held, a.HeldUntil = m.Arrived, m.Hold != nil, 0
	if m.Hold != nil {
		a.HeldUntil = m.Hold.Until
	}
	return a, err
}

// The major types of CBOR (RFC 8949 section 3.1).
const (
	cborUint  = 0
	cborNint  = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
)

func cutTime(value []byte, to *mail.Time) bool {
	major, n, _, ok := cborHead(value)
	*to = mail.Time(n)
	return ok && major == cborUint && *to >= 0
}

// eachField gives the fields of an encoded struct, each once and in order; false:
// v is none, or f said so.
func eachField(v []byte, f func(field uint64, value []byte) bool) bool {
	major, pairs, v, ok := cborHead(v)
	if !ok || major != cborMap {
		return false
	}
	next := uint64(0)
	for range pairs {
		major, field, value, ok := cborHead(v)
		if !ok || major != cborUint || field < next {
			return false
		}
		next = field + 1
		if v, ok = cborSkip(value, 0); !ok || !f(field, value) {
			return false
		}
	}
	return len(v) == 0
}

// cborHead reads the head of a data item of definite length.
func cborHead(b []byte) (major byte, arg uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, nil, false
	}
	major, info, b := b[0]>>5, b[0]&31, b[1:]
	if info < 24 {
		return major, uint64(info), b, true
	}
	n := 1 << (info - 24) // octets of the argument
	if info > 27 || len(b) < n {
		return 0, 0, nil, false
	}
	for _, c := range b[:n] {
		arg = arg<<8 | uint64(c)
	}
	return major, arg, b[n:], true
}

// maxCBORDepth is deeper than any row.
const maxCBORDepth = 8

// cborSkip passes over one data item.
func cborSkip(b []byte, depth int) ([]byte, bool) {
	major, arg, b, ok := cborHead(b)
	if !ok || depth > maxCBORDepth {
		return nil, false
	}
	items := arg
	switch major {
	case cborUint, cborNint:
		return b, true
	case cborBytes, cborText:
		if arg > uint64(len(b)) {
			return nil, false
		}
		return b[arg:], true
	case cborArray:
	case cborMap:
		if items *= 2; arg > uint64(len(b)) {
			return nil, false
		}
	default: // tags are not written; true, false and null have no content
		return b, arg < 24
	}
	for range items {
		if b, ok = cborSkip(b, depth+1); !ok {
			return nil, false
		}
	}
	return b, true
}
