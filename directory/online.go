package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Apply records a login event and tells what it led to. now is the machine's
// time, which never goes back; life is Limits.SessionLife.
//
// A session is known by access server, restart of that server and
// Acct-Session-Id. A Start that was heard before, and everything about a session
// that has ended, is a Duplicate: nothing changes. So packets may be repeated and
// may overtake each other, and a late Start does not bring a session back.
//
// An event without a session ID (HTTP hook, file, command) speaks of every
// session that it does not contradict by access server or address. A Start
// without ID always Triggers; told twice it makes no second session.
//
// A session that was silent for life is over, and no second login is one too many
// for it. A Start begins it anew, a late Stop ends it, and an Interim-Update takes
// back that it was over.
//
// Errors: mail.Invalid for an event that no source may send, then nothing is
// changed; mail.Broken for an account's row that does not decode; those of the
// disk.
func (e Event) Apply(tx kv.Tx, now mail.Time, life time.Duration) (Seen, error) {
	if err := e.check(); err != nil {
		return Seen{}, err
	}
	e.Address = e.Address.Unmap()
	m := &mender{tx: tx, now: now}
	apply := e.session
	if e.Kind == EventOn || e.Kind == EventOff {
		apply = e.restart
	}
	seen, err := apply(m, life)
	if err != nil {
		return Seen{}, err
	}
	seen.Mended = m.text()
	return seen, nil
}

// session applies an event of one session.
func (e Event) session(m *mender, life time.Duration) (Seen, error) {
	seen := Seen{Login: e.Login}
	account, err := Reader{R: m.tx}.Account(e.Login)
	if err != nil {
		return Seen{}, err
	}
	if account == nil {
		seen.Unknown = true
		return seen, nil
	}
	p, err := m.presence(e.Login)
	if err != nil {
		return Seen{}, err
	}
	nas, err := m.server(e.NAS)
	if err != nil {
		return Seen{}, err
	}
	before, err := p.settle(m.server, m.now, life)
	if err != nil {
		return Seen{}, err
	}
	at := m.now.Add(-min(max(e.Delay, 0), MaxDelay))
	h := hearing{Event: e, p: &p, account: account, boot: nas.Boot, now: at, seen: &seen}
	if e.Session == "" {
		h.unnamed()
	} else {
		h.named()
	}
	if seen.Duplicate {
		seen.Online = p.Online
		return seen, nil
	}
	if err := p.write(m, before, at); err != nil {
		return Seen{}, err
	}
	seen.Online = p.Online
	return seen, nil
}

// restart applies Accounting-On and -Off (RFC 2866 section 5.1).
func (e Event) restart(m *mender, _ time.Duration) (Seen, error) {
	nas, err := m.server(e.NAS)
	if err != nil {
		return Seen{}, err
	}
	at, id := &nas.OnAt, &nas.OnID
	if e.Kind == EventOff {
		at, id = &nas.OffAt, &nas.OffID
	}
	if e.Session != "" && e.Session == *id && m.now.Sub(*at) < RestartRepeated {
		return Seen{Duplicate: true}, nil
	}
	seen := Seen{Sessions: nas.Live}
	*at, *id = m.now, e.Session
	nas.Boot, nas.At, nas.Live = nas.Boot+1, m.now, 0
	return seen, nas.write(m.tx, e.NAS)
}

// hearing is one event on its way into a Presence.
type hearing struct {
	Event
	p       *Presence
	account *Account
	boot    uint64    // of the event's access server
	now     mail.Time // when it happened
	seen    *Seen
}

// named applies an event with an Acct-Session-Id.
func (h *hearing) named() {
	s := h.find()
	if s != nil && s.Missed {
		if h.Kind != EventStart {
			h.resume(s)
			return
		}
		// Nobody repeats a Start for that long: the ID is used again.
		gone := *s
		h.p.Sessions = slices.DeleteFunc(h.p.Sessions, func(s Session) bool { return s == gone })
		s = nil
	}
	switch {
	case s != nil && (!s.Live() || h.Kind == EventStart && s.StartHeard):
		h.seen.Duplicate = true
	case s != nil:
		h.refresh(s)
	case h.Kind == EventStop:
		// The Start may still come; it must find that the session is over.
		s = h.adopt()
		if s == nil {
			s = h.add()
		}
		s.Stopped = h.now
	default:
		h.seen.Triggers = true
		if s = h.adopt(); s != nil {
			h.refresh(s)
			return
		}
		h.begin()
	}
}

// unnamed applies an event without one.
func (h *hearing) unnamed() {
	if h.Kind == EventStop {
		for i := range h.p.Sessions {
			if s := &h.p.Sessions[i]; s.Live() && !h.contradicts(s) {
				s.Heard = max(s.Heard, h.now)
				s.Stopped = max(s.Started, h.now)
			}
		}
		return
	}
	for i := range h.p.Sessions {
		if s := &h.p.Sessions[i]; s.Live() && !h.contradicts(s) {
			known := s.Address
			h.refresh(s)
			if h.Kind == EventStart {
				h.seen.Triggers = true
				if known == s.Address { // else refresh has looked at it
					h.checkAddress()
				}
			}
			return
		}
	}
	h.seen.Triggers = true
	h.begin()
}

// find gives the session that the event names, or nil.
func (h *hearing) find() *Session {
	for i := range h.p.Sessions {
		if s := &h.p.Sessions[i]; s.NAS == h.NAS && s.ID == h.Session && s.Boot == h.boot {
			return s
		}
	}
	return nil
}

// resume applies a Stop or Interim-Update to a session that was thought to be over.
func (h *hearing) resume(s *Session) {
	other := slices.IndexFunc(h.p.Sessions, Session.Live)
	s.Missed, s.Stopped = false, 0
	h.refresh(s)
	if other >= 0 && s.Live() && h.seen.Double == DoubleNone {
		h.second(h.p.Sessions[other])
	}
}

// adopt gives a name to a session that another source told of without one, and
// returns it; nil where there is none.
func (h *hearing) adopt() *Session {
	for i := range h.p.Sessions {
		if s := &h.p.Sessions[i]; s.Live() && s.ID == "" && !h.contradicts(s) {
			s.NAS, s.ID, s.Boot, s.Heard = h.NAS, h.Session, h.boot, max(s.Heard, h.now)
			return s
		}
	}
	return nil
}

// contradicts reports whether the event cannot be about s, where one of the two
// is without a session ID.
func (h *hearing) contradicts(s *Session) bool {
	return h.NAS != "" && s.NAS != "" && h.NAS != s.NAS ||
		h.Address.IsValid() && s.Address.IsValid() && h.Address != s.Address
}

// add puts a session at the end of the list.
func (h *hearing) add() *Session {
	h.p.Sessions = append(h.p.Sessions, Session{NAS: h.NAS, ID: h.Session, Address: h.Address,
		Started: h.now, Heard: h.now, StartHeard: h.Kind == EventStart, Boot: h.boot, Source: h.Source})
	return &h.p.Sessions[len(h.p.Sessions)-1]
}

// begin adds a session that is online now, and looks whether it is one too many.
func (h *hearing) begin() {
	i := slices.IndexFunc(h.p.Sessions, Session.Live)
	if i < 0 {
		h.add()
		h.checkAddress()
		return
	}
	other := h.p.Sessions[i]
	h.add()
	h.second(other)
}

// second tells of a session beside another one.
func (h *hearing) second(other Session) {
	h.double(DoubleSession, fmt.Sprintf("logged in%s while another session is online%s since %s",
		where(h.NAS, h.Address), where(other.NAS, other.Address), other.Started.Std().Format("2006-01-02 15:04:05Z")))
}

// refresh applies an event to a session that is online.
func (h *hearing) refresh(s *Session) {
	s.Heard = max(s.Heard, h.now)
	switch h.Kind {
	case EventStop:
		s.Stopped = max(s.Started, h.now)
		return
	case EventStart:
		s.StartHeard = true
	}
	if h.Address.IsValid() && s.Address != h.Address {
		s.Address = h.Address
		h.checkAddress()
	}
}

// checkAddress tells of a framed address that is not the account's. An account
// without a fixed address of that family has nothing to compare with.
func (h *hearing) checkAddress() {
	if !h.Address.IsValid() || slices.Contains(h.account.Addresses, h.Address) {
		return
	}
	family := func(a netip.Addr) bool { return a.Is4() == h.Address.Is4() }
	i := slices.IndexFunc(h.account.Addresses, family)
	if i < 0 {
		return
	}
	h.double(DoubleAddress, fmt.Sprintf("logged in%s, not with its fixed address %s",
		where(h.NAS, h.Address), h.account.Addresses[i]))
}

func (h *hearing) double(d Double, what string) {
	h.seen.Double = d
	h.p.Doubles++
	h.p.LastDouble, h.p.LastDoubleWhat = h.now, what
}

func where(nas string, a netip.Addr) string {
	var b strings.Builder
	if a.IsValid() {
		b.WriteString(" with " + a.String())
	}
	if nas != "" {
		b.WriteString(" at " + nas)
	}
	return b.String()
}
