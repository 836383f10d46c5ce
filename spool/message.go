package spool

import "bsmtpd/mail"

// Bounds of what one message may be. smtpd refuses more with 452 or 552; the
// spool answers mail.Invalid.
const (
	MaxRecipients = 1000
	ChunkBytes    = 240 << 10 // of a body in one row and one command
	MaxWordsBytes = 1024      // of another server's words that are kept
	MaxBodyBytes  = 1 << 30
)

// BodyID names a stored body: the ID of the command that brought its first
// chunk.
type BodyID = mail.ID

// Message is the row of one message in one queue. A message for several queues
// has a row in each, all with the same ID and body.
type Message struct {
	ID    mail.ID   `cbor:"-"`
	Queue QueueName `cbor:"-"`

	From     mail.Address `cbor:"1,keyasint,omitempty"`
	To       []Recipient  `cbor:"2,keyasint"` // those not settled yet
	Return   mail.Return  `cbor:"3,keyasint,omitempty"`
	EnvID    string       `cbor:"4,keyasint,omitempty"`
	UTF8     bool         `cbor:"5,keyasint,omitempty"`
	EightBit bool         `cbor:"6,keyasint,omitempty"`
	Size     int64        `cbor:"7,keyasint"` // bytes of the body as stored, headers included
	Arrived  mail.Time    `cbor:"8,keyasint"`
	Body     BodyID       `cbor:"9,keyasint"`
	RetryAt  mail.Time    `cbor:"10,keyasint,omitempty"` // not before, unless the cause is urgent
	Attempts int          `cbor:"11,keyasint,omitempty"`
	Hold     *Hold        `cbor:"12,keyasint,omitempty"`
	Expires  mail.Time    `cbor:"13,keyasint,omitempty"` // 0: never (B2)
}

// Recipient is one recipient that is still to be reached.
type Recipient struct {
	Address  mail.Address `cbor:"1,keyasint"`
	Original string       `cbor:"2,keyasint,omitempty"`
	Notify   mail.Notify  `cbor:"3,keyasint,omitempty"`
	Last     mail.Reply   `cbor:"4,keyasint,omitempty"` // what was last said about it
}

// Envelope is the message's envelope with the recipients that are left.
func (m *Message) Envelope() mail.Envelope {
	e := mail.Envelope{From: m.From, Return: m.Return, EnvID: m.EnvID, UTF8: m.UTF8, EightBit: m.EightBit}
	for _, r := range m.To {
		e.To = append(e.To, mail.Recipient{Address: r.Address, Original: r.Original, Notify: r.Notify})
	}
	return e
}

// Enqueue asks to keep one message. The body comes beside it: whole, or as a
// staged one.
type Enqueue struct {
	Envelope mail.Envelope `cbor:"1,keyasint"` // its To is empty: the recipients stand in Targets
	Targets  []Target      `cbor:"2,keyasint"`
	Size     int64         `cbor:"3,keyasint"`
	Staged   BodyID        `cbor:"4,keyasint,omitempty"` // the staged body; 0: the body is beside the command
	Settles  *OwedKey      `cbor:"5,keyasint,omitempty"` // this is the notification for that owed bounce
}

// Target is the part of a message that goes to one queue.
type Target struct {
	Queue QueueName        `cbor:"1,keyasint"`
	To    []mail.Recipient `cbor:"2,keyasint"`
}

// Enqueued says what became of an Enqueue. With ID 0 nothing was kept.
type Enqueued struct {
	ID      mail.ID        `cbor:"1,keyasint,omitempty"`
	Targets []TargetResult `cbor:"2,keyasint"` // as in the Enqueue
}

// Refusal says why a target's part was not queued.
type Refusal uint8

// The refusals.
const (
	Accepted Refusal = iota
	OverQuota
	NoAccount // the account has gone since RCPT
)

// TargetResult is what became of one target. Where another target was accepted,
// the recipients of a refused one are owed a bounce (B11).
type TargetResult struct {
	Refusal Refusal `cbor:"1,keyasint,omitempty"`
	Usage   int64   `cbor:"2,keyasint,omitempty"` // bytes the account held when it was refused
	Quota   int64   `cbor:"3,keyasint,omitempty"`
}

// Stage brings one chunk of a body ahead of its envelope. The chunk comes
// beside it.
type Stage struct {
	Body BodyID `cbor:"1,keyasint,omitempty"` // 0: the first chunk; the answer names the body
	N    int    `cbor:"2,keyasint"`           // the chunk's number, from 0
}

// Staged names the body that a chunk belongs to.
type Staged struct {
	Body BodyID `cbor:"1,keyasint"`
}
