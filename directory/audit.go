package directory

import "bsmtpd/mail"

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
