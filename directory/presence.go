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
}

// Live reports whether the session is online.
func (s Session) Live() bool { return s.Stopped == 0 }

// accessServer is the row of one access server.
//
// Accounting-On and -Off end all its sessions, and there can be tens of
// thousands. Touching their rows would make one command as long as that, and a
// limit per command would leave the rest wrong. So the server only counts its
// restarts, and a session that began under an earlier count is over, whoever
// looks at it. A time would not do instead of a count: commands of one log entry
// share their time. Live says how many sessions a restart ends.
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

// Presence reads what is known about a login's sessions; the zero Presence with
// its Login where nothing is. Errors are those of the disk, or mail.Broken.
func (r Reader) Presence(login mail.Login) (Presence, error) {
	p, err := row[Presence](r.R, presenceKey(login))
	if err != nil || p == nil {
		return Presence{Login: login}, err
	}
	return *p, p.settle(r.R)
}

// Presences gives the presence of all logins after one that were ever heard of,
// in order of login.
func (r Reader) Presences(after mail.Login, errp *error) iter.Seq[Presence] {
	return func(yield func(Presence) bool) {
		for p := range rowsAfter[Presence](r.R, presencePrefix, string(after), errp) {
			if err := p.settle(r.R); err != nil {
				*errp = err
				return
			}
			if !yield(p) {
				return
			}
		}
	}
}

// settle ends the sessions whose access server has restarted since.
func (p *Presence) settle(r kv.Reader) error {
	for i := range p.Sessions {
		s := &p.Sessions[i]
		if !s.Live() {
			continue
		}
		nas, err := readServer(r, s.NAS)
		if err != nil {
			return err
		}
		if s.Boot < nas.Boot {
			s.Stopped = nas.At
		}
	}
	if p.Online && p.live() == 0 {
		p.Online = false
		for _, s := range p.Sessions {
			p.Since = max(p.Since, s.Stopped)
		}
	}
	return nil
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
// are the sessions as they were when p was read, at is when the event happened.
func (p *Presence) write(tx kv.Tx, before []Session, now, at mail.Time) error {
	p.trim(now)
	p.LastEvent = now
	if online := p.live() > 0; online != p.Online {
		p.Online, p.Since = online, max(p.Since, at)
	}
	if err := countLive(tx, before, p.Sessions); err != nil {
		return err
	}
	return tx.Set(presenceKey(p.Login), kv.Encode(p))
}

// countLive moves the access servers' counts from one state of a login's
// sessions to another.
func countLive(tx kv.Tx, before, after []Session) error {
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
		nas, err := readServer(tx, d.nas)
		if err != nil {
			return err
		}
		nas.Live += d.n
		if err := nas.write(tx, d.nas); err != nil {
			return err
		}
	}
	return nil
}

// forgetPresence removes all that is known about a login's sessions. Whoever
// removes an account calls it.
func forgetPresence(tx kv.Tx, login mail.Login) error {
	p, err := Reader{R: tx}.Presence(login)
	if err != nil {
		return err
	}
	if err := countLive(tx, p.Sessions, nil); err != nil {
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
