package spool

import "bsmtpd/mail"

// Action is what an operator does to messages; numbers are stored.
type Action uint8

// The actions.
const (
	ActHold    Action = 1 // keep, do not try
	ActRelease Action = 2 // end a hold, try
	ActRetry   Action = 3 // try now
	ActBounce  Action = 4 // give up, tell the sender
	ActRemove  Action = 5 // take out of the queue, tell nobody; can be brought back for Settings.TrashLife
	ActRequeue Action = 6 // bring back removed mail
)

var actionNames = [...]string{"", "hold", "release", "retry", "bounce", "remove", "requeue"}

// String is the action's name in commands and the audit.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// Item names one message in one queue.
type Item struct {
	Queue QueueName `cbor:"1,keyasint"`
	ID    mail.ID   `cbor:"2,keyasint"`
}

// Act does one action to at most MaxItems messages. Items that are not there any
// more are passed over and counted.
type Act struct {
	Action Action `cbor:"1,keyasint"`
	Items  []Item `cbor:"2,keyasint"`
	By     string `cbor:"3,keyasint"`
	Reason string `cbor:"4,keyasint,omitempty"`
	Filter string `cbor:"5,keyasint,omitempty"` // how Items were chosen, for the audit
}

// Acted answers an Act.
type Acted struct {
	Done    int      `cbor:"1,keyasint,omitempty"`
	Missing int      `cbor:"2,keyasint,omitempty"` // not there any more
	Refused []string `cbor:"3,keyasint,omitempty"` // why others were not done, one text each

	// Busy are items whose queue a session is pushing: they may be on the wire,
	// so nothing was done to them. The session has been asked to end
	// (EffectStop) and no other may begin for a moment: ask again.
	Busy []Item `cbor:"4,keyasint,omitempty"`
}

// HoldQueue holds a whole queue, mail that is still to come included, or lifts
// that (Release).
type HoldQueue struct {
	Queue   QueueName `cbor:"1,keyasint"`
	Release bool      `cbor:"2,keyasint,omitempty"`
	By      string    `cbor:"3,keyasint"`
	Reason  string    `cbor:"4,keyasint,omitempty"`
	Until   mail.Time `cbor:"5,keyasint,omitempty"`
}

// Suspend stops delivery by a rule: everything, or one route's host, or one
// domain's queue; Resume lifts it. Mail is still taken in and kept.
type Suspend struct {
	Scope  Scope     `cbor:"1,keyasint"`
	Resume bool      `cbor:"2,keyasint,omitempty"`
	By     string    `cbor:"3,keyasint"`
	Reason string    `cbor:"4,keyasint,omitempty"`
	Until  mail.Time `cbor:"5,keyasint,omitempty"`
}

// Scope is what a suspension covers: "all", or a queue's name.
type Scope string

// ScopeAll covers every queue.
const ScopeAll Scope = "all"

// Suspension is one rule in force.
type Suspension struct {
	Scope Scope `cbor:"-"`
	Hold  Hold  `cbor:"1,keyasint"`
}

// OwedKey names an owed bounce.
type OwedKey struct {
	ID    mail.ID   `cbor:"1,keyasint"`
	Queue QueueName `cbor:"2,keyasint"`
	Seq   uint64    `cbor:"3,keyasint"` // one message can owe several, as its recipients fail one by one
}

// Owed is a notification that is owed to a sender. The body is kept for it.
type Owed struct {
	Key      OwedKey         `cbor:"-"`
	From     mail.Address    `cbor:"1,keyasint"` // whom to tell; never null
	Return   mail.Return     `cbor:"2,keyasint,omitempty"`
	EnvID    string          `cbor:"3,keyasint,omitempty"`
	Arrived  mail.Time       `cbor:"4,keyasint"`
	Since    mail.Time       `cbor:"5,keyasint"` // when it came to be owed
	Size     int64           `cbor:"6,keyasint"`
	Body     BodyID          `cbor:"7,keyasint"`
	UTF8     bool            `cbor:"8,keyasint,omitempty"`
	EightBit bool            `cbor:"9,keyasint,omitempty"`
	To       []OwedRecipient `cbor:"10,keyasint"`
}

// NotifyAction is the Action field of RFC 3464 section 2.3.3; numbers are stored.
type NotifyAction uint8

// The actions that are reported.
const (
	NotifyFailed  NotifyAction = 1
	NotifyDelayed NotifyAction = 2
	NotifyRelayed NotifyAction = 3
)

// OwedRecipient is one recipient to report.
type OwedRecipient struct {
	Address  mail.Address `cbor:"1,keyasint"`
	Original string       `cbor:"2,keyasint,omitempty"`
	Action   NotifyAction `cbor:"3,keyasint"`
	Cause    FailCause    `cbor:"4,keyasint"`
	Reply    mail.Reply   `cbor:"5,keyasint,omitempty"` // the other side's words, or ours
	Remote   string       `cbor:"6,keyasint,omitempty"` // who said them; empty: we did
	Last     mail.Time    `cbor:"7,keyasint,omitempty"` // last attempt
}

// FailCause is why a recipient is reported, for the wording; numbers are stored.
type FailCause uint8

// The causes.
const (
	FailRemote   FailCause = 1 // the other side refused
	FailQuota    FailCause = 2 // the account is full
	FailExpired  FailCause = 3 // it was tried for too long
	FailOperator FailCause = 4 // an operator gave up
	FailAccount  FailCause = 5 // the account has gone
	FailRelayed  FailCause = 6 // not a failure: handed to a server without DSN
)

// Waive drops an owed bounce that nobody can be told, with the reason.
type Waive struct {
	Key    OwedKey `cbor:"1,keyasint"`
	Reason string  `cbor:"2,keyasint"`
}
