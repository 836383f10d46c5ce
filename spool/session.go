package spool

import (
	"time"

	"bsmtpd/mail"
)

// Bounds of what one command carries.
const (
	MaxResults = 500 // messages in one Settle
	MaxItems   = 500 // messages in one Act
)

// MaxClaimLife is how long a claim holds at most, whatever it asks for.
const MaxClaimLife = 24 * time.Hour

// Claim asks for a queue to push, or for more time for a session that has it.
type Claim struct {
	Queue   QueueName `cbor:"1,keyasint"`
	Node    string    `cbor:"2,keyasint"`
	Session uint64    `cbor:"3,keyasint"`           // 0: a new session, which ClaimResult gives its number
	Until   mail.Time `cbor:"4,keyasint,omitempty"` // without a Life: the end, by the clock of whoever asks
	Cause   Cause     `cbor:"5,keyasint"`

	// Life is how long the claim is to hold, from the moment in which it is
	// applied: the node that asks may have another clock.
	Life time.Duration `cbor:"6,keyasint,omitempty"`
}

// Denial says why a claim was refused.
type Denial uint8

// The denials.
const (
	Granted   Denial = iota
	Taken            // another session holds it
	Empty            // nothing is queued
	Held             // the queue is held or its delivery suspended, or is kept quiet for a moment
	NotPushed        // a mailbox
)

// ClaimResult answers a Claim. Extending one's own claim is granted too.
type ClaimResult struct {
	Denial Denial `cbor:"1,keyasint,omitempty"`
	Cause  Cause  `cbor:"2,keyasint,omitempty"` // the most urgent cause known, perhaps not the one that was given

	// Of a claim that was granted. No other session of any node ever had or has
	// the number of a new one.
	Session uint64    `cbor:"3,keyasint,omitempty"`
	Until   mail.Time `cbor:"4,keyasint,omitempty"`
}

// Settle reports results of a session, in any order and number. A Sent is
// believed from anybody, for the mail is gone; anything else only from the
// session that holds the claim.
type Settle struct {
	Queue   QueueName `cbor:"1,keyasint"`
	Session uint64    `cbor:"2,keyasint"`
	Results []Result  `cbor:"3,keyasint"`
}

// Result is what a session learned about one message.
type Result struct {
	ID      mail.ID           `cbor:"1,keyasint"`
	To      []RecipientResult `cbor:"2,keyasint"`
	RetryAt mail.Time         `cbor:"3,keyasint,omitempty"` // for what was deferred
	Remote  string            `cbor:"4,keyasint,omitempty"` // host name of the other side, for notifications
}

// Fate is what happened to one recipient.
type Fate uint8

// The fates; numbers are stored, never change them.
const (
	Sent     Fate = 1
	Deferred Fate = 2
	Failed   Fate = 3
)

// RecipientResult is the other side's answer for one recipient.
type RecipientResult struct {
	Address mail.Address `cbor:"1,keyasint"`
	Fate    Fate         `cbor:"2,keyasint"`
	Reply   mail.Reply   `cbor:"3,keyasint,omitempty"`

	// Relayed: sent to a server that does not know DSN, so a sender who asked
	// for success is told now (RFC 3461 section 5.2.2, action "relayed").
	Relayed bool `cbor:"4,keyasint,omitempty"`
}

// Settled answers a Settle.
type Settled struct {
	Stale   bool `cbor:"1,keyasint,omitempty"` // the claim is not this session's: stop working
	Removed int  `cbor:"2,keyasint,omitempty"` // messages that left the queue
	Owed    int  `cbor:"3,keyasint,omitempty"` // bounces owed
	Damaged int  `cbor:"4,keyasint,omitempty"` // results of messages whose rows do not decode; they were set aside
}

// Finish ends a session.
type Finish struct {
	Queue   QueueName `cbor:"1,keyasint"`
	Session uint64    `cbor:"2,keyasint"`
	Outcome Outcome   `cbor:"3,keyasint"`
	Began   mail.Time `cbor:"4,keyasint"`
	Words   string    `cbor:"5,keyasint,omitempty"`
	Remote  string    `cbor:"6,keyasint,omitempty"` // address:port
	Banner  string    `cbor:"7,keyasint,omitempty"`
	Sent    int       `cbor:"8,keyasint,omitempty"` // recipients handed over in the session

	// EarliestRetry is the least RetryAt of the messages that the session saw
	// and left in the queue; 0: none was left.
	EarliestRetry mail.Time `cbor:"9,keyasint,omitempty"`
	// Cause is the session's, for the queue's LastCause.
	Cause Cause `cbor:"10,keyasint,omitempty"`
	// SeenTo is the greatest ID that the session saw in the queue, tried or
	// passed over. Mail above it came too late for the session: due at once.
	SeenTo mail.ID `cbor:"11,keyasint,omitempty"`
	// Damaged: the session met rows of the queue that do not decode. They are set
	// aside.
	Damaged bool `cbor:"12,keyasint,omitempty"`
}

// Finished answers a Finish with the queue's next attempt.
type Finished struct {
	Stale bool      `cbor:"1,keyasint,omitempty"`
	Next  mail.Time `cbor:"2,keyasint,omitempty"`
	Left  int64     `cbor:"3,keyasint,omitempty"` // messages in the queue
}

// Trigger makes a queue due at once.
type Trigger struct {
	Queue QueueName `cbor:"1,keyasint"`
	Cause Cause     `cbor:"2,keyasint"`
	By    string    `cbor:"3,keyasint,omitempty"`
}

// Triggered answers a Trigger.
type Triggered struct {
	Messages int64  `cbor:"1,keyasint,omitempty"`
	Denial   Denial `cbor:"2,keyasint,omitempty"` // Granted, Empty, Held; Taken: a session is at work, and was told
}

// Sweep looks at a stretch of all queues (B4): it makes every non-empty account
// queue due, and repairs any queue that has mail and no next event.
type Sweep struct {
	After QueueName `cbor:"1,keyasint,omitempty"` // go on after this queue; empty: begin
	Limit int       `cbor:"2,keyasint"`

	// RepairOnly leaves due times alone (the watchdog between sweeps).
	RepairOnly bool `cbor:"3,keyasint,omitempty"`
}

// Swept answers a Sweep.
type Swept struct {
	Last     QueueName `cbor:"1,keyasint,omitempty"` // where to go on; empty: the end was reached
	Due      int       `cbor:"2,keyasint,omitempty"`
	Repaired int       `cbor:"3,keyasint,omitempty"` // queues that had no next event: should be 0
	Damaged  int       `cbor:"4,keyasint,omitempty"` // queues whose row did not decode and was made anew
}

// Expire does what the passing of time asks for: messages past their life,
// staged bodies, trash and rules past theirs. (A claim past its end is nobody's,
// and the schedule brings its queue back: nothing is to be done.) At most Limit
// rows; Expired.More says whether to ask again at once.
type Expire struct {
	Limit int `cbor:"1,keyasint"`
}

// Expired answers an Expire.
type Expired struct {
	Messages int  `cbor:"1,keyasint,omitempty"` // bounced for age
	Bodies   int  `cbor:"3,keyasint,omitempty"` // staged and never used
	Trash    int  `cbor:"4,keyasint,omitempty"`
	Holds    int  `cbor:"5,keyasint,omitempty"`
	Damaged  int  `cbor:"7,keyasint,omitempty"` // rows that do not decode, set aside
	More     bool `cbor:"6,keyasint,omitempty"`
}
