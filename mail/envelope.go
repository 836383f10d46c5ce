// Package mail holds the words that every other package is written in:
// addresses, envelopes, replies, queue IDs and errors.
package mail

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// Envelope is what MAIL and RCPT said: where a message comes from and goes to.
type Envelope struct {
	From     Address     `cbor:"1,keyasint"`
	To       []Recipient `cbor:"2,keyasint"`
	Return   Return      `cbor:"3,keyasint,omitempty"`
	EnvID    string      `cbor:"4,keyasint,omitempty"` // ENVID, xtext decoded (RFC 3461 section 4.4)
	UTF8     bool        `cbor:"5,keyasint,omitempty"` // MAIL had SMTPUTF8 (RFC 6531)
	EightBit bool        `cbor:"6,keyasint,omitempty"` // MAIL had BODY=8BITMIME (RFC 6152)
}

// Recipient is one RCPT of a message.
type Recipient struct {
	Address  Address `cbor:"1,keyasint"`
	Original string  `cbor:"2,keyasint,omitempty"` // ORCPT "type;address", xtext decoded (RFC 3461 section 4.2)
	Notify   Notify  `cbor:"3,keyasint,omitempty"`
}

// Return says how much of a message a failure notification returns
// (RFC 3461 section 4.3). Zero: not asked, then the headers.
type Return uint8

// The values of RET.
const (
	ReturnUnset Return = iota
	ReturnHeaders
	ReturnFull
)

// Notify says when a recipient's sender wants a notification (RFC 3461 section
// 4.1). Zero: not asked, then on failure and delay.
type Notify uint8

// The values of NOTIFY; Never stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// OnFailure reports whether a failure is to be notified.
func (n Notify) OnFailure() bool { return n == 0 || n&NotifyFailure != 0 }

// OnDelay reports whether a delay is to be notified.
func (n Notify) OnDelay() bool { return n == 0 || n&NotifyDelay != 0 }

// OnSuccess reports whether a delivery is to be notified.
func (n Notify) OnSuccess() bool { return n&NotifySuccess != 0 }

// ID names an accepted message for ever: the place in the replicated log where
// it was accepted. IDs grow in order of acceptance and are never used again.
// The upper 48 bits are the log index, the lower 16 the place in the entry.
type ID uint64

const idPlaceBits = 16

// MaxPlace is the largest place an entry of the log can give out.
const MaxPlace = 1<<idPlaceBits - 1

// NewID is the ID of the message at a place in the log entry of an index.
func NewID(index uint64, place int) ID {
	if index >= 1<<(64-idPlaceBits) || place < 0 || place > MaxPlace {
		panic(fmt.Sprintf("mail: no ID for index %d place %d: the entry was made too large", index, place))
	}
	return ID(index<<idPlaceBits | uint64(place))
}

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// String is the ID as people see it: 13 characters that sort as the IDs do.
func (id ID) String() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	return idEncoding.EncodeToString(b[:])
}

// ParseID reads what String wrote, in either case.
func ParseID(s string) (ID, error) {
	b, err := idEncoding.DecodeString(strings.ToUpper(s))
	if err != nil || len(b) != 8 {
		return 0, fmt.Errorf("%q is not a queue ID: 13 characters of 0-9 and A-V", s)
	}
	id := ID(binary.BigEndian.Uint64(b))
	if id.String() != strings.ToUpper(s) { // the last character has a spare bit
		return 0, fmt.Errorf("%q is not a queue ID", s)
	}
	return id, nil
}
