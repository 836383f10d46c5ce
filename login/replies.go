package login

import (
	"net/netip"
	"sync"
	"time"
)

// A retransmission has the source, Identifier and Authenticator of its request
// (RFC 5080 section 2.2.2). While the request is worked on it is ignored; for
// replyMemory afterwards it gets the same answer again.
const (
	replyMemory = 30 * time.Second
	maxReplies  = 16384
)

type requestKey struct {
	from          netip.AddrPort
	code          byte
	identifier    byte
	authenticator [16]byte
}

// keyOf takes the key from a packet that wire has let through.
func keyOf(raw []byte, from netip.AddrPort) requestKey {
	k := requestKey{from: from, code: raw[0], identifier: raw[1]}
	copy(k.authenticator[:], raw[4:20])
	return k
}

// replies knows the requests in flight and those just answered.
type replies struct {
	mu       sync.Mutex            // guards all below; nobody waits while holding it
	known    map[requestKey][]byte // nil: in flight
	answered []answered            // in order of time
}

type answered struct {
	key   requestKey
	until time.Time
}

func newReplies() *replies { return &replies{known: map[requestKey][]byte{}} }

// begin reports whether the request is new; then end must follow. Otherwise
// reply is what to send again, or nil while the first is in flight.
func (r *replies) begin(k requestKey) (reply []byte, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(time.Now())
	if reply, seen := r.known[k]; seen {
		return reply, false
	}
	r.known[k] = nil
	return nil, true
}

// end keeps the reply; nil: there was none, so that a retransmission is a new
// try.
func (r *replies) end(k requestKey, reply []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reply == nil {
		delete(r.known, k)
		return
	}
	now := time.Now()
	r.known[k] = reply
	r.answered = append(r.answered, answered{k, now.Add(replyMemory)})
	r.forget(now)
}

func (r *replies) forget(now time.Time) {
	n := 0
	for n < len(r.answered) && (len(r.answered)-n > maxReplies || !now.Before(r.answered[n].until)) {
		delete(r.known, r.answered[n].key)
		n++
	}
	r.answered = r.answered[n:]
}
