package directory

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Bounds of presence.
const (
	MaxSessions   = 16             // remembered sessions of a login, ended ones included; the oldest goes first
	MaxNASName    = 253            // bytes of Event.NAS, as much as a RADIUS attribute holds
	MaxSessionID  = 253            // bytes of Event.Session
	SessionMemory = 24 * time.Hour // an ended session is known that long, so that a late packet does not bring it back
)

// RestartRepeated is how long an Accounting-On or -Off of the same access server
// with the same Acct-Session-Id counts as a retransmission. Longer would be
// wrong: many access servers send one and the same ID at every restart.
const RestartRepeated = 2 * time.Minute

const (
	presencePrefix = "P/" // P/<login>: a Presence
	serverPrefix   = "p/" // p/<nas>: an accessServer
)

// Presence is what login events tell about one account.
type Presence struct {
	Login          mail.Login `cbor:"8,keyasint"`
	Online         bool       `cbor:"1,keyasint,omitempty"`
	Since          mail.Time  `cbor:"2,keyasint,omitempty"` // when it last went online or offline
	LastEvent      mail.Time  `cbor:"3,keyasint,omitempty"` // the last event that was applied
	Sessions       []Session  `cbor:"4,keyasint,omitempty"` // in order of first being heard of, at most MaxSessions
	Doubles        int        `cbor:"5,keyasint,omitempty"` // events that broke the one-session rule (B16)
	LastDouble     mail.Time  `cbor:"6,keyasint,omitempty"`
	LastDoubleWhat string     `cbor:"7,keyasint,omitempty"` // in words
}

// Session is one connection of a customer to the access network.
type Session struct {
	NAS     string     `cbor:"1,keyasint,omitempty"` // access server; empty: told by HTTP, file or command
	ID      string     `cbor:"2,keyasint,omitempty"` // Acct-Session-Id; empty: the source gives none
	Address netip.Addr `cbor:"3,keyasint,omitempty"` // invalid: not told
	Started mail.Time  `cbor:"4,keyasint,omitempty"` // when it was first heard of
	Heard   mail.Time  `cbor:"5,keyasint,omitempty"` // when it was last heard of
	Stopped mail.Time  `cbor:"6,keyasint,omitempty"` // 0: it is online

	StartHeard bool   `cbor:"7,keyasint,omitempty"` // by a Start; else by an Interim-Update or Stop alone
	Boot       uint64 `cbor:"8,keyasint,omitempty"` // accessServer.Boot when it began
	Source     string `cbor:"9,keyasint,omitempty"` // Event.Source that first told of it

	// Missed says that the session ended because nobody heard of it for
	// Limits.SessionLife, which has gone by at Stopped: its Stop was lost, or its
	// access server sends no Interim-Updates. One brings it back.
	Missed bool `cbor:"10,keyasint,omitempty"`
}

// Live reports whether the session is online.
func (s Session) Live() bool { return s.Stopped == 0 }

// age ends the session if nothing was heard of it for life; 0 is for ever. What
// ended at its access server's restart may have been over long before. A Stop is
// heard of when it ends a session, so it ends none that is over.
func (s *Session) age(now mail.Time, life time.Duration) {
	end := s.Stopped
	if s.Live() {
		end = now
	}
	if at := s.Heard.Add(life); life > 0 && at <= end {
		s.Stopped, s.Missed = at, true
	}
}

// accessServer is the row of one access server.
//
// Accounting-On and -Off end all its sessions, and there can be tens of
// thousands. Touching their rows would make one command as long as that, and a
// limit per command would leave the rest wrong. So the server only counts its
// restarts, and a session that began under an earlier count is over, whoever
// looks at it. A time would not do instead of a count: commands of one log entry
// share their time. Live says how many sessions a restart ends; those that only
// grew old count until their login's next event.
//
// The row goes when nothing is in it; what stays is one row for each access
// server that ever restarted.
type accessServer struct {
	Boot  uint64    `cbor:"1,keyasint,omitempty"` // restarts so far
	At    mail.Time `cbor:"2,keyasint,omitempty"` // the last one
	Live  int       `cbor:"3,keyasint,omitempty"` // sessions online, all logins together
	OnAt  mail.Time `cbor:"4,keyasint,omitempty"`
	OnID  string    `cbor:"5,keyasint,omitempty"` // Acct-Session-Id of the last Accounting-On
	OffAt mail.Time `cbor:"6,keyasint,omitempty"`
	OffID string    `cbor:"7,keyasint,omitempty"`
}

func presenceKey(login mail.Login) []byte { return append([]byte(presencePrefix), login...) }
func serverKey(nas string) []byte         { return append([]byte(serverPrefix), nas...) }

func readServer(r kv.Reader, nas string) (accessServer, error) {
	if nas == "" { // events without an access server never speak of its restart
		return accessServer{}, nil
	}
	s, err := row[accessServer](r, serverKey(nas))
	if err != nil || s == nil {
		return accessServer{}, err
	}
	return *s, nil
}

func (s accessServer) write(tx kv.Tx, nas string) error {
	if s.Boot == 0 && s.Live == 0 {
		return tx.Delete(serverKey(nas))
	}
	return tx.Set(serverKey(nas), kv.Encode(s))
}

// Presence reads what is known about a login's sessions at a time; the zero
// Presence with its Login where nothing is. life is Limits.SessionLife. Errors are
// those of the disk, or mail.Broken.
func (r Reader) Presence(login mail.Login, now mail.Time, life time.Duration) (Presence, error) {
	p, err := row[Presence](r.R, presenceKey(login))
	if undecodable(err) {
		err = &mail.Error{Op: "directory", Kind: mail.Broken,
			Err: fmt.Errorf("who is online as %s is not known, for the row is damaged (%w); the next login event begins it anew", login, err)}
	}
	if err != nil || p == nil {
		return Presence{Login: login}, err
	}
	_, err = p.settle(passOver(r.R), now, life)
	return *p, err
}

// Presences gives the presence of all logins after one that were ever heard of,
// in order of login. now and life are as for Presence.
func (r Reader) Presences(after mail.Login, now mail.Time, life time.Duration, errp *error) iter.Seq[Presence] {
	return func(yield func(Presence) bool) {
		for p := range rowsAfter[Presence](r.R, presencePrefix, string(after), errp) {
			if _, err := p.settle(passOver(r.R), now, life); err != nil {
				*errp = err
				return
			}
			if !yield(p) {
				return
			}
		}
	}
}

// settle ends the sessions whose access server has restarted since, and those of
// which nothing was heard for life. It gives the sessions as they count at their
// access servers, where nobody knows of age.
func (p *Presence) settle(server func(nas string) (accessServer, error), now mail.Time, life time.Duration) ([]Session, error) {
	for i := range p.Sessions {
		s := &p.Sessions[i]
		if !s.Live() {
			continue
		}
		nas, err := server(s.NAS)
		if err != nil {
			return nil, err
		}
		if s.Boot < nas.Boot {
			s.Stopped = nas.At
		}
	}
	counted := slices.Clone(p.Sessions)
	for i := range p.Sessions {
		p.Sessions[i].age(now, life)
	}
	if p.Online && p.live() == 0 {
		p.Online = false
		for _, s := range p.Sessions {
			p.Since = max(p.Since, s.Stopped)
		}
	}
	return counted, nil
}

// Missed gives the session that ended last, if the login is offline only because
// nothing was heard of it.
func (p *Presence) Missed() (Session, bool) {
	var last Session
	for _, s := range p.Sessions {
		if s.Live() {
			return Session{}, false
		}
		if s.Stopped >= last.Stopped {
			last = s
		}
	}
	return last, last.Missed
}

func (p *Presence) live() int {
	n := 0
	for _, s := range p.Sessions {
		if s.Live() {
			n++
		}
	}
	return n
}

// trim forgets what is too old or too much: ended sessions first.
func (p *Presence) trim(now mail.Time) {
	p.Sessions = slices.DeleteFunc(p.Sessions, func(s Session) bool {
		return !s.Live() && now.Sub(s.Stopped) >= SessionMemory
	})
	for len(p.Sessions) > MaxSessions {
		i := max(0, slices.IndexFunc(p.Sessions, func(s Session) bool { return !s.Live() }))
		p.Sessions = slices.Delete(p.Sessions, i, i+1)
	}
}

// write stores p, and what changed in the count of its access servers. before
// are the sessions as settle gave them, at is when the event happened.
func (p *Presence) write(m *mender, before []Session, at mail.Time) error {
	p.trim(m.now)
	p.LastEvent = m.now
	if online := p.live() > 0; online != p.Online {
		p.Online, p.Since = online, max(p.Since, at)
	}
	if err := countLive(m, before, p.Sessions); err != nil {
		return err
	}
	return m.tx.Set(presenceKey(p.Login), kv.Encode(p))
}

// countLive moves the access servers' counts from one state of a login's
// sessions to another.
func countLive(m *mender, before, after []Session) error {
	type delta struct {
		nas string
		n   int
	}
	var deltas []delta // at most 2*MaxSessions; a slice keeps its order, a map does not
	add := func(sessions []Session, n int) {
		for _, s := range sessions {
			if !s.Live() || s.NAS == "" {
				continue
			}
			i := slices.IndexFunc(deltas, func(d delta) bool { return d.nas == s.NAS })
			if i < 0 {
				i, deltas = len(deltas), append(deltas, delta{nas: s.NAS})
			}
			deltas[i].n += n
		}
	}
	add(before, -1)
	add(after, 1)
	for _, d := range deltas {
		if d.n == 0 {
			continue
		}
		nas, err := m.server(d.nas)
		if err != nil {
			return err
		}
		nas.Live += d.n
		if err := nas.write(m.tx, d.nas); err != nil {
			return err
		}
	}
	return nil
}

// forgetPresence removes all that is known about a login's sessions. Whoever
// removes an account calls it.
func forgetPresence(tx kv.Tx, now mail.Time, login mail.Login) error {
	m := &mender{tx: tx, now: now}
	p, err := m.presence(login)
	if err != nil {
		return err
	}
	counted, err := p.settle(m.server, now, 0)
	if err != nil {
		return err
	}
	if err := countLive(m, counted, nil); err != nil {
		return err
	}
	return tx.Delete(presenceKey(login))
}

// check refuses events that no source may send.
func (e Event) check() error {
	var err error
	switch {
	case e.Kind < EventStart || e.Kind > EventOff:
		err = fmt.Errorf("login event of the unknown kind %d", e.Kind)
	case len(e.NAS) > MaxNASName || !utf8.ValidString(e.NAS):
		err = fmt.Errorf("the access server's name is longer than %d bytes or not UTF-8", MaxNASName)
	case len(e.Session) > MaxSessionID || !utf8.ValidString(e.Session):
		err = fmt.Errorf("the session ID is longer than %d bytes or not UTF-8", MaxSessionID)
	case (e.Kind == EventOn || e.Kind == EventOff) && e.NAS == "":
		err = errors.New("a restart names no access server")
	default:
		return nil
	}
	return &mail.Error{Op: "directory.Event", Kind: mail.Invalid, Err: err}
}
