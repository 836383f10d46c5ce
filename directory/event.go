package directory

import (
	"net/netip"
	"time"

	"bsmtpd/mail"
)

// EventKind is what happened to a login.
type EventKind uint8

// The kinds of login events; numbers are stored, never change them.
const (
	EventStart   EventKind = 1 // the customer came online
	EventStop    EventKind = 2 // the customer went offline
	EventInterim EventKind = 3 // still online (RADIUS Interim-Update)
	EventOn      EventKind = 4 // the access server restarted: all its sessions are gone
	EventOff     EventKind = 5 // the access server goes down: likewise
)

// Event is "this login came online with this address at this time".
type Event struct {
	Kind    EventKind  `cbor:"1,keyasint"`
	Login   mail.Login `cbor:"2,keyasint,omitempty"` // empty for On and Off
	Address netip.Addr `cbor:"3,keyasint,omitempty"` // framed address; invalid: not told
	NAS     string     `cbor:"4,keyasint,omitempty"` // access server, "" for HTTP and files
	Session string     `cbor:"5,keyasint,omitempty"` // Acct-Session-Id; "": none, then never a duplicate
	Source  string     `cbor:"6,keyasint"`           // radius, http, file or cli

	// Delay is how long ago it happened (Acct-Delay-Time, RFC 2866 section 5.2),
	// from 0 to MaxDelay; what lies beyond is taken for that.
	Delay time.Duration `cbor:"7,keyasint,omitempty"`
}

// MaxDelay is how far back an event is dated at most.
const MaxDelay = time.Hour

// Double says how a login breaks the one-session rule (B16).
type Double uint8

// The ways. A login can break it in one way only; the first that holds is told.
const (
	DoubleNone    Double = iota
	DoubleSession        // another session of the login is online
	DoubleAddress        // the framed address is not one of the account's fixed addresses
)

// Seen is what a login event led to.
type Seen struct {
	Login     mail.Login `cbor:"1,keyasint,omitempty"`
	Unknown   bool       `cbor:"2,keyasint,omitempty"` // no such login
	Duplicate bool       `cbor:"3,keyasint,omitempty"` // this session's event was applied before
	Online    bool       `cbor:"4,keyasint,omitempty"` // after the event
	Double    Double     `cbor:"5,keyasint,omitempty"`
	Triggers  bool       `cbor:"6,keyasint,omitempty"`  // an event that starts a push, if not debounced
	Mended    string     `cbor:"10,keyasint,omitempty"` // rows that were damaged and were begun anew, in words

	// Set by the machine after it has asked the spool.
	Debounced bool  `cbor:"7,keyasint,omitempty"`
	Queued    int64 `cbor:"8,keyasint,omitempty"` // messages waiting
	Sessions  int   `cbor:"9,keyasint,omitempty"` // sessions ended by On or Off
}

// OutcomeNoted is the Outcome of an event that was recorded, and nothing more had
// to follow.
const OutcomeNoted = "noted"

// Outcome is what the event led to in one word, for logs and counters: unknown,
// duplicate, debounced, triggered or noted.
func (s Seen) Outcome() string {
	switch {
	case s.Unknown:
		return "unknown"
	case s.Duplicate:
		return "duplicate"
	case s.Debounced:
		return "debounced"
	case s.Triggers:
		return "triggered"
	}
	return OutcomeNoted
}
