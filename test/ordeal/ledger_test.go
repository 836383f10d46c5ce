package ordeal

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mark begins the first header field of each message; its number stands behind it.
const mark = "X-Ordeal: "

// entry is what the outside world knows of one message.
type entry struct {
	to  []string // recipients that were not refused
	sum [sha256.Size]byte

	id    string    // from the 250; empty: the sender was not told that it is queued
	acked time.Time // when
	reply string    // the last reply where it is not a 250

	held    time.Time // when the operator was told that it is held; zero: it is not
	removed time.Time // when he was told that it is gone
	unsure  bool      // he wanted it removed and does not know whether it is
}

// receipt is one copy of a message at a customer's server.
type receipt struct {
	n    int
	at   time.Time // when the end of the message came
	conn *visit
}

// ledger is kept outside the server: what was promised and what came.
type ledger struct {
	mu       sync.Mutex // guards all below
	entries  map[int]*entry
	replies  map[string]int // how often each kind of reply came
	arrivals map[string][]receipt
	faults   []string
}

func newLedger() *ledger {
	return &ledger{entries: map[int]*entry{}, replies: map[string]int{}, arrivals: map[string][]receipt{}}
}

func (l *ledger) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// compose makes message n and enters it.
func (l *ledger) compose(r *rand.Rand, n, size int, to []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%d\r\nFrom: anna@pietersen.example\r\nSubject: message %d\r\n\r\n", mark, n, n)
	block := make([]byte, 0, 4096)
	for len(block) < 4000 {
		for range r.IntN(75) {
			block = append(block, ".ab cdefghijklmnopqrstuvwxyz"[r.IntN(28)])
		}
		block = append(block, "\r\n"...)
	}
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d of %d\r\n", i, n)
		b.Write(block)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[n] = &entry{to: to, sum: sha256.Sum256(b.Bytes())}
	return b.Bytes()
}

// answer enters the last reply to message n; empty: there was none.
func (l *ledger) answer(n int, reply string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[n]
	e.reply = reply
	kind := reply
	if words := strings.SplitN(reply, " ", 3); len(words) > 1 {
		kind = words[0] + " " + words[1]
	}
	l.replies[kind]++
	if _, id, ok := strings.Cut(reply, "250 2.0.0 queued as "); ok {
		e.id, e.acked = id, time.Now()
	}
}

// arrive enters a copy that a customer's server has got to its end.
func (l *ledger) arrive(to []string, body []byte, v *visit) {
	at := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int
	i := bytes.Index(body, []byte("\r\n"+mark))
	if i < 0 {
		l.fault("a message came that nobody sent: %.200q", body)
		return
	}
	body = body[i+2:]
	fmt.Sscanf(string(body[:min(len(body), 40)]), mark+"%d", &n)
	e := l.entries[n]
	switch {
	case e == nil:
		l.fault("message %d came, and nobody sent it", n)
		return
	case sha256.Sum256(body) != e.sum:
		l.fault("message %d was changed on its way: it came with %d octets", n, len(body))
	}
	// Not on a connection to a server that was killed meanwhile: what it had sent
	// before can be read late.
	if !e.removed.IsZero() && v.began.After(e.removed) {
		l.fault("message %d came %s after its removal was acknowledged", n, at.Sub(e.removed))
	}
	if !e.held.IsZero() && v.began.After(e.held) {
		l.fault("message %d came while it was held", n)
	}
	for _, a := range to {
		if !slices.Contains(e.to, a) {
			l.fault("message %d came for %s, who is not among its recipients %v", n, a, e.to)
		}
		key := fmt.Sprintf("%d %s", n, a)
		l.arrivals[key] = append(l.arrivals[key], receipt{n, at, v})
	}
}

func (l *ledger) acked() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.id != "" {
			n++
		}
	}
	return n
}

// count is how often replies of this kind came, "452 4.3.1".
func (l *ledger) count(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replies[kind]
}

// moment is how long before a kill a message may have arrived whose sending was
// not yet recorded: results are collected for 50 ms (delivery.report_every) and
// then wait for the disk.
const moment = time.Second

// audit compares what was promised with what came, when all queues are empty. A
// copy too many is explained by a kill, or by the customer's server going away,
// within a moment after the copy before it came over that very connection.
func (l *ledger) audit(t testing.TB, s *server) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	acked, unacked, missing, removed := 0, 0, 0, 0
	for _, n := range slices.Sorted(maps.Keys(l.entries)) {
		e := l.entries[n]
		for _, a := range e.to {
			came := len(l.arrivals[fmt.Sprintf("%d %s", n, a)]) > 0
			switch {
			case e.id == "" && came:
				unacked++
				// 451 leaves it open: the change may have been committed later.
				if e.reply != "" && !strings.HasPrefix(e.reply, "451") {
					l.fault("message %d came though it was refused with %q", n, e.reply)
				}
			case e.id == "":
			case !e.removed.IsZero() || e.unsure:
				removed++
			case !came:
				missing++
				l.fault("message %d (%s) for %s was acknowledged at %s and never came", n, e.id, a, e.acked.Format(time.StampMilli))
			}
		}
		if e.id != "" {
			acked++
		}
	}
	byKill, byCut := 0, 0
	longest := time.Duration(0)
	for key, copies := range l.arrivals {
		for i, c := range copies[:len(copies)-1] {
			next := copies[i+1]
			cut := c.conn.cutAt()
			if at, yes := s.killed(later(c.conn.began, c.at.Add(-moment)), earlier(next.at, c.at.Add(moment))); yes {
				byKill++
				longest = max(longest, at.Sub(c.at))
			} else if !cut.IsZero() && cut.Sub(c.at) < moment {
				byCut++
			} else {
				l.fault("message and recipient %s came at %s and again at %s without a reason", key, c.at.Format(time.StampMilli), next.at.Format(time.StampMilli))
			}
		}
	}
	for _, f := range l.faults[:min(20, len(l.faults))] {
		t.Error(f)
	}
	if len(l.faults) > 20 {
		t.Errorf("and %d faults more", len(l.faults)-20)
	}
	t.Logf("seed %d: %d messages acknowledged, %d recipients missed theirs; %d were removed by an operator; %d came without an acknowledgement; copies too many: %d by kills (at most %s before), %d by customers who hung up; replies %v",
		seed, acked, missing, removed, unacked, byKill, longest.Round(time.Millisecond), byCut, l.replies)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
