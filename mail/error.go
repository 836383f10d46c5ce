package mail

import (
	"errors"
	"strings"
)

// Kind says what sort of failure an Error is. Callers decide on the Kind, people
// read the text.
type Kind uint8

// The kinds of failure.
const (
	Other       Kind = iota
	Invalid          // the input is wrong; the same call fails again
	NotFound         // no such account, domain, queue or message
	Exists           // the name is taken
	Conflict         // the thing is in use, claimed or not empty
	OverQuota        // the account is full
	Limit            // a limit of the server or of the caller is reached; later it may pass
	Unavailable      // not committed in time, no leader, shutting down; try again
	LowSpace         // the disk is at its watermark
	Denied           // not allowed for this caller
	Broken           // a stored record or a file is damaged
)

var kindNames = [...]string{"other", "invalid", "not-found", "exists", "conflict", "over-quota",
	"limit", "unavailable", "low-space", "denied", "broken"}

// String is the kind's name in JSON.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Other]
}

// ParseKind reads what String wrote; an unknown name is Other.
func ParseKind(s string) Kind {
	for i, n := range kindNames {
		if n == s {
			return Kind(i)
		}
	}
	return Other
}

// Error says what was being done, what kind of failure it is, the status for a
// reply where one is fixed, and the cause.
type Error struct {
	Op     string // "quota.Charge"; empty where it adds nothing
	Kind   Kind
	Status Status // zero: chosen from Kind by whoever replies
	Err    error
}

var _ error = (*Error)(nil)

// Error is the text for people: the cause, with the operation before it.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	} else {
		b.WriteString(e.Kind.String())
	}
	return b.String()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the Kind of the first Error in err's chain; Broken where there is none
// but something in the chain says that it is Damaged, as kv.Damage does; else Other.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var d interface{ Damaged() }
	if errors.As(err, &d) {
		return Broken
	}
	return Other
}

// Fail makes an Error from a kind and a text.
func Fail(kind Kind, text string) *Error { return &Error{Kind: kind, Err: errors.New(text)} }
