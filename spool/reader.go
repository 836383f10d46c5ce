package spool

import (
	"io"
	"iter"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Reader reads the spool. It sees the newest applied state at each call; wrap a
// kv.Snapshot for one unchanging state over several.
type Reader struct{ R kv.Reader }

// Due is one queue that is to be tried.
type Due struct {
	Queue QueueName
	At    mail.Time
	Cause Cause
}

// Each method's errors are those of the disk, or mail.Broken for a row that does
// not decode.
type reading interface {
	// Queue reads one queue's row; ok false: nothing was ever queued there.
	Queue(name QueueName) (q Queue, ok bool, err error)
	// Queues gives all queue rows after a name, in order of name.
	Queues(after QueueName, err *error) iter.Seq[Queue]
	// Message reads one row; ok false: it is not there any more.
	Message(queue QueueName, id mail.ID) (m Message, ok bool, err error)
	// Messages gives a queue's messages after an ID, in order of arrival. A row
	// that does not decode is passed over, and *err then says so at the end.
	Messages(queue QueueName, after mail.ID, err *error) iter.Seq[Message]
	// Where gives the queues in which a message stands.
	Where(id mail.ID) ([]QueueName, error)
	// Body opens a body; the sum of its bytes is the message's Size.
	Body(id BodyID) (io.ReadCloser, error)
	// Small gives a small body whole, or nil if only Body can.
	Small(id BodyID, size int64) ([]byte, error)
	// Due gives at most limit queues that are due at now or before, the most
	// overdue first.
	Due(now mail.Time, limit int) ([]Due, error)
	// DueAfter goes on after a row that Due or DueAfter gave.
	DueAfter(after Due, now mail.Time, limit int) ([]Due, error)
	// NextDue is when the next queue is due; 0: none is.
	NextDue() (mail.Time, error)
	// Owed gives at most limit owed bounces after a key, the oldest first.
	Owed(after OwedKey, limit int) ([]Owed, error)
	// Trash gives removed messages after an ID.
	Trash(after Item, err *error) iter.Seq[Removed]
	// Suspensions gives all rules in force.
	Suspensions() ([]Suspension, error)
	// Suspended gives the rule that stops a queue, or nil.
	Suspended(queue QueueName, now mail.Time) (*Suspension, error)
	// Expirable reports whether an Expire at now would find anything.
	Expirable(now mail.Time) (bool, error)
	// LastSweep is when the last full sweep began.
	LastSweep() (mail.Time, error)
	// WithoutNext counts queues with mail that have no next event (B24): 0.
	WithoutNext(now mail.Time) (int, error)
}

var _ reading = Reader{}

// Removed is a message that an operator removed.
type Removed struct {
	Message Message   `cbor:"1,keyasint"`
	At      mail.Time `cbor:"2,keyasint"`
	By      string    `cbor:"3,keyasint"`
	Reason  string    `cbor:"4,keyasint,omitempty"`
	Until   mail.Time `cbor:"5,keyasint"`
}
