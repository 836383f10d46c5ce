package directory

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"math"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// MaxAuditRecords are kept; the oldest is dropped for the newest.
const MaxAuditRecords = 1_000_000

// AuditRecord is one change by a person or program.
type AuditRecord struct {
	Seq    uint64    `cbor:"-"` // its number, from the row's key
	At     mail.Time `cbor:"1,keyasint"`
	By     string    `cbor:"2,keyasint"`
	Action string    `cbor:"3,keyasint"`           // "account set", "queue remove"
	Object string    `cbor:"4,keyasint"`           // "account/jansen"
	Before string    `cbor:"5,keyasint,omitempty"` // JSON of the object, "" where there was none
	After  string    `cbor:"6,keyasint,omitempty"`
	Reason string    `cbor:"7,keyasint,omitempty"`
}

// Apply appends the record with the next number; At becomes now.
func (c AuditRecord) Apply(tx kv.Tx, now mail.Time) error {
	log := auditLog{tx: tx, now: now, by: c.By}
	return log.append(c)
}

// auditLog appends the records of one command.
type auditLog struct {
	tx   kv.Tx
	now  mail.Time
	by   string
	next uint64 // 0: not read yet; the first record has number 1
	keep uint64 // 0: MaxAuditRecords
}

func (l *auditLog) append(rec AuditRecord) error {
	if l.next == 0 {
		last, err := lastAudit(l.tx)
		if err != nil {
			return err
		}
		l.next = last + 1
	}
	if l.keep == 0 {
		l.keep = MaxAuditRecords
	}
	rec.At = l.now
	if err := l.tx.Set(auditKey(l.next), kv.Encode(rec)); err != nil {
		return err
	}
	// Numbers have no gaps, so one record leaves for each that comes.
	if l.next > l.keep {
		if err := l.tx.Delete(auditKey(l.next - l.keep)); err != nil {
			return err
		}
	}
	l.next++
	return nil
}

// change records that an object became after; before and after are pointers, nil
// for none.
func (l *auditLog) change(what, name string, before, after any) error {
	rec := AuditRecord{By: l.by, Object: what + "/" + name, Before: auditJSON(before), After: auditJSON(after)}
	switch {
	case rec.Before == "":
		rec.Action = what + " add"
	case rec.After == "":
		rec.Action = what + " remove"
	default:
		rec.Action = what + " set"
	}
	return l.append(rec)
}

func auditJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("directory: " + err.Error()) // a field of ours that JSON cannot hold
	}
	if string(b) == "null" {
		return ""
	}
	return string(b)
}

// lastAudit is the number of the newest record, 0 where there is none.
func lastAudit(r kv.Reader) (uint64, error) {
	key, _, err := r.Last([]byte(auditRows), kv.PrefixEnd([]byte(auditRows)))
	if err != nil || key == nil {
		return 0, err
	}
	return auditSeq(key)
}

func auditSeq(key []byte) (uint64, error) {
	if len(key) != len(auditRows)+8 {
		return 0, &mail.Error{Op: "directory", Kind: mail.Broken, Err: fmt.Errorf("audit row has the key %q", key)}
	}
	return binary.BigEndian.Uint64(key[len(auditRows):]), nil
}

// Audit gives the records after a number, the oldest first.
func (r Reader) Audit(after uint64, errp *error) iter.Seq[AuditRecord] {
	return func(yield func(AuditRecord) bool) {
		if after == math.MaxUint64 {
			return
		}
		var broken error
		for k, v := range r.R.Scan(auditKey(after+1), kv.PrefixEnd([]byte(auditRows)), errp) {
			rec, err := auditRecord(k, v)
			if err != nil {
				broken = err
				continue
			}
			if !yield(*rec) {
				break
			}
		}
		if *errp == nil {
			*errp = broken
		}
	}
}

// AuditNewest gives the records before a number, the newest first; before 0: from
// the newest of all.
func (r Reader) AuditNewest(before uint64, errp *error) iter.Seq[AuditRecord] {
	return func(yield func(AuditRecord) bool) {
		last, err := lastAudit(r.R)
		if err != nil {
			*errp = err
			return
		}
		if before == 0 || before > last+1 {
			before = last + 1
		}
		for seq := before - 1; seq > 0; seq-- {
			v, err := r.R.Get(auditKey(seq))
			if err != nil {
				*errp = err
				return
			}
			if v == nil { // dropped for its age, and so are all before it
				return
			}
			rec, err := auditRecord(auditKey(seq), v)
			if err != nil {
				*errp = err
				continue
			}
			if !yield(*rec) {
				return
			}
		}
	}
}

func auditRecord(key, value []byte) (*AuditRecord, error) {
	seq, err := auditSeq(key)
	if err != nil {
		return nil, err
	}
	rec, err := decode[AuditRecord](key, value)
	if err != nil {
		return nil, err
	}
	rec.Seq = seq
	return rec, nil
}
