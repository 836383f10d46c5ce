// Package spool knows the states of a message and of a queue, and makes the only
// legal moves between them.
//
// It is pure: every function works on a kv.Tx or kv.Reader it is given and takes
// the time as an argument. cluster.Machine calls the moves in the order that the
// replicated log dictates; everybody else reads through Reader.
package spool

import (
	"strings"
	"time"
	"unicode"

	"bsmtpd/mail"
)

// QueueName names a queue: "account/<login>" (waiting to be pushed to the
// customer), "mailbox/<login>" (the customer's own mail, never pushed) or
// "out/<domain>" (waiting to be sent to the world).
type QueueName string

const (
	accountPrefix = "account/"
	mailboxPrefix = "mailbox/"
	outPrefix     = "out/"
)

// AccountQueue is the queue of mail waiting to be pushed to an account's server.
func AccountQueue(login mail.Login) QueueName { return QueueName(accountPrefix + string(login)) }

// MailboxQueue is the account's own mail.
func MailboxQueue(login mail.Login) QueueName { return QueueName(mailboxPrefix + string(login)) }

// OutQueue is the queue of mail to a domain elsewhere.
func OutQueue(domain mail.Domain) QueueName { return QueueName(outPrefix + string(domain)) }

// Login is the account that the queue belongs to and whose quota it uses; empty
// for an out queue.
func (q QueueName) Login() mail.Login {
	if s, ok := strings.CutPrefix(string(q), accountPrefix); ok {
		return mail.Login(s)
	}
	if s, ok := strings.CutPrefix(string(q), mailboxPrefix); ok {
		return mail.Login(s)
	}
	return ""
}

// Domain is the domain of an out queue, else empty.
func (q QueueName) Domain() mail.Domain {
	if s, ok := strings.CutPrefix(string(q), outPrefix); ok {
		return mail.Domain(s)
	}
	return ""
}

// IsMailbox reports a queue that is never pushed.
func (q QueueName) IsMailbox() bool { return strings.HasPrefix(string(q), mailboxPrefix) }

// IsAccount reports a queue that is pushed to a customer's server.
func (q QueueName) IsAccount() bool { return strings.HasPrefix(string(q), accountPrefix) }

// IsOut reports a queue to the world.
func (q QueueName) IsOut() bool { return strings.HasPrefix(string(q), outPrefix) }

// Valid reports whether q has one of the three forms, and nothing in it that would
// make the key of a row ambiguous or a line of a log two.
func (q QueueName) Valid() bool {
	return (q.Login() != "" || q.Domain() != "") && !strings.ContainsFunc(string(q), unicode.IsControl)
}

// Cause is what started, or is to start, an attempt. Lower numbers go first.
type Cause uint8

// The causes in order of urgency; numbers are stored, never change them.
const (
	CauseNone     Cause = 0
	CauseLogin    Cause = 10 // the customer came online
	CauseOperator Cause = 11
	CauseWakeup   Cause = 12 // wake-up mail
	CauseETRN     Cause = 13
	CauseATRN     Cause = 14
	CauseNew      Cause = 20 // new mail
	CauseTimer    Cause = 30
	CauseSweep    Cause = 40
)

var causeNames = map[Cause]string{CauseNone: "", CauseLogin: "login", CauseOperator: "operator", CauseWakeup: "wakeup",
	CauseETRN: "etrn", CauseATRN: "atrn", CauseNew: "new", CauseTimer: "timer", CauseSweep: "sweep"}

// String is the cause in logs and JSON.
func (c Cause) String() string { return causeNames[c] }

// Urgent causes try every message, also one whose own retry time has not come.
func (c Cause) Urgent() bool { return c != CauseNone && c != CauseNew }

// Queue is the row of one queue.
type Queue struct {
	Name     QueueName `cbor:"-"`
	Messages int64     `cbor:"1,keyasint,omitempty"`
	Bytes    int64     `cbor:"2,keyasint,omitempty"`

	Next  mail.Time `cbor:"3,keyasint,omitempty"` // when the next attempt is due; 0: none is (empty, held, mailbox)
	Cause Cause     `cbor:"4,keyasint,omitempty"` // of that attempt

	Claim    *Claimed `cbor:"5,keyasint,omitempty"` // the session that works on it now
	Failing  bool     `cbor:"6,keyasint,omitempty"` // an attempt failed since the last success or login
	Failures int      `cbor:"7,keyasint,omitempty"` // failed attempts in a row

	LastAttempt mail.Time `cbor:"8,keyasint,omitempty"` // when the last attempt began
	LastCause   Cause     `cbor:"9,keyasint,omitempty"`
	LastOutcome Outcome   `cbor:"10,keyasint,omitempty"`
	LastWords   string    `cbor:"11,keyasint,omitempty"` // the other side's own words, or the network's
	LastRemote  string    `cbor:"12,keyasint,omitempty"` // address and port that was tried
	LastSuccess mail.Time `cbor:"13,keyasint,omitempty"` // when a message was last handed over
	LastBanner  string    `cbor:"14,keyasint,omitempty"`

	LastLogin        mail.Time `cbor:"15,keyasint,omitempty"` // last login event, also a debounced one
	LastLoginTrigger mail.Time `cbor:"16,keyasint,omitempty"` // last login that started an attempt
	Debounced        int64     `cbor:"17,keyasint,omitempty"` // logins debounced since then

	Hold *Hold `cbor:"18,keyasint,omitempty"` // the whole queue is held

	// Again is the most urgent trigger that came while a session was at work.
	// If the session fails, the queue is tried again at once for it.
	Again Cause `cbor:"19,keyasint,omitempty"`
	// Quiet: no claim before this time. An operator's change waits for the
	// session at work to end, and none may begin in between.
	Quiet mail.Time `cbor:"20,keyasint,omitempty"`

	Held int64 `cbor:"21,keyasint,omitempty"` // of Messages, those with a hold of their own
}

// Hold says why a queue or message is not to be tried.
type Hold struct {
	By     string    `cbor:"1,keyasint"`
	Reason string    `cbor:"2,keyasint,omitempty"`
	At     mail.Time `cbor:"3,keyasint"`
	Until  mail.Time `cbor:"4,keyasint,omitempty"` // 0: until somebody lifts it
}

// Claimed is the session that a queue is given to. Its mail may be given to
// nobody else before Until.
type Claimed struct {
	Node    string    `cbor:"1,keyasint"`
	Session uint64    `cbor:"2,keyasint"`
	Since   mail.Time `cbor:"3,keyasint"`
	Until   mail.Time `cbor:"4,keyasint"`
	Cause   Cause     `cbor:"5,keyasint"`
}

// Outcome is how an attempt ended.
type Outcome uint8

// The outcomes; numbers are stored, never change them.
const (
	OutcomeNone    Outcome = 0
	OutcomeDone    Outcome = 1 // connected, and every message got an answer
	OutcomeFailed  Outcome = 2 // the other side could not be reached, or would not talk to us
	OutcomeLost    Outcome = 3 // the connection broke off in the middle
	OutcomeNothing Outcome = 4 // nothing was sent: all is held or waits, or the session was stopped before
	OutcomeExpired Outcome = 5 // the session was never heard of again: its claim ran out
)

// failed reports an attempt that says that the other side cannot be reached.
func (o Outcome) failed() bool { return o == OutcomeFailed || o == OutcomeLost }

// learnedNothing reports an attempt after which as much is known of the other side
// as before it: whether it can be reached, and its last words.
func (o Outcome) learnedNothing() bool { return o == OutcomeNothing || o == OutcomeExpired }

var outcomeNames = [...]string{"", "done", "failed", "lost", "nothing", "expired"}

// String is the outcome in logs and JSON.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// Settings are the numbers by which the spool decides, part of the replicated
// settings: all nodes decide by the same ones.
type Settings struct {
	Retry         time.Duration `cbor:"1,keyasint"` // B3: 20 min after a failed attempt
	SweepEvery    time.Duration `cbor:"2,keyasint"` // B4: 4 h
	LoginWindow   time.Duration `cbor:"3,keyasint"` // B6: 20 min
	OutRetryFirst time.Duration `cbor:"4,keyasint"` // back-off to the world begins here, and doubles
	OutRetryMax   time.Duration `cbor:"5,keyasint"`
	OutLife       time.Duration `cbor:"6,keyasint"` // 5 days
	StageLife     time.Duration `cbor:"7,keyasint"` // a body without its envelope is dropped after this
	TrashLife     time.Duration `cbor:"8,keyasint"` // removed mail can be brought back so long
}

// DefaultSettings are the numbers that are promised (doc/promises.md).
func DefaultSettings() Settings {
	return Settings{
		Retry:         20 * time.Minute,
		SweepEvery:    4 * time.Hour,
		LoginWindow:   20 * time.Minute,
		OutRetryFirst: 5 * time.Minute,
		OutRetryMax:   4 * time.Hour,
		OutLife:       5 * 24 * time.Hour,
		StageLife:     time.Hour,
		TrashLife:     72 * time.Hour,
	}
}
