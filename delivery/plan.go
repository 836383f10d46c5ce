package delivery

import (
	"net/netip"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// item is one queue that is to be tried.
type item struct {
	Queue   spool.QueueName
	Cause   spool.Cause
	At      mail.Time    // when it came to be due; in the future: not before
	Network netip.Prefix // where its server stands; the zero Prefix when that is not known
}

// planLimits bound what runs at the same time. Zero PerNetwork: no such limit.
type planLimits struct {
	Sessions   int
	Background int // of them, sessions that a timer or sweep started
	PerNetwork int
	MaxWaiting int
}

// plan says which queues are tried next. It is pure: no clock, no goroutine.
//
// Order: every waiting queue has a rank, the time when it was added plus a
// patience that depends on its cause. The least rank goes first, so logins pass
// timers, yet a timer that has waited long enough passes fresh logins: nothing
// starves. (Strict classes were not enough: a provider with logins all day would
// never come to its timers.) Rank counts from the moment of adding and not from
// the due time, or thousands of timers that came due while the node was down
// would all pass the first login after it.
//
// Timers mostly meet servers that are offline and hold their place for the whole
// connect timeout, so they may never take all places (Background).
//
// Each operation takes O(log n): within a class of causes the waiting queues of
// one network form a heap, and the networks that have room form a heap of heaps.
type plan struct {
	limits  planLimits
	seq     uint64
	waiting map[spool.QueueName]*waiter
	future  ordered[waiter] // by At
	classes [2]class        // foreground, background

	running    map[spool.QueueName]*running
	background int // of running
	networks   map[netip.Prefix]int
}

const (
	foreground = 0
	background = 1
)

type waiter struct {
	item
	rank  mail.Time
	seq   uint64
	class int
	box   *bucket // nil: not yet due
	place int
}

type running struct {
	network netip.Prefix
	class   int
	again   spool.Cause
}

type class struct {
	buckets map[netip.Prefix]*bucket
	ready   ordered[bucket] // buckets whose network has room
}

type bucket struct {
	network netip.Prefix
	waiters ordered[waiter]
	place   int // in ready; -1: the network is full
}

func waiterPlace(w *waiter) *int { return &w.place }
func bucketPlace(b *bucket) *int { return &b.place }

func byRank(a, b *waiter) bool {
	if a.rank != b.rank {
		return a.rank < b.rank
	}
	if a.At != b.At {
		return a.At < b.At
	}
	return a.seq < b.seq
}

func byTime(a, b *waiter) bool {
	if a.At != b.At {
		return a.At < b.At
	}
	return a.seq < b.seq
}

func byTop(a, b *bucket) bool { return byRank(a.waiters.top(), b.waiters.top()) }

func newPlan(l planLimits) *plan {
	p := &plan{
		limits:   l,
		waiting:  map[spool.QueueName]*waiter{},
		future:   ordered[waiter]{less: byTime, place: waiterPlace},
		running:  map[spool.QueueName]*running{},
		networks: map[netip.Prefix]int{},
	}
	for i := range p.classes {
		p.classes[i] = class{buckets: map[netip.Prefix]*bucket{}, ready: ordered[bucket]{less: byTop, place: bucketPlace}}
	}
	return p
}

// patience is how long a queue lets later, more urgent ones pass.
func patience(c spool.Cause) time.Duration {
	switch {
	case c < spool.CauseNew:
		return 0
	case c < spool.CauseTimer:
		return 30 * time.Second
	case c < spool.CauseSweep:
		return 5 * time.Minute
	}
	return 20 * time.Minute
}

func classOf(c spool.Cause) int {
	if c >= spool.CauseTimer {
		return background
	}
	return foreground
}

// Add puts a queue on the list. One that waits already takes the more urgent
// cause and the earlier time; one that runs is marked to be told by Done. false:
// the list is full; the queue stays due in its row, so read the rows later.
func (p *plan) Add(now mail.Time, it item) bool {
	if r := p.running[it.Queue]; r != nil {
		r.again = moreUrgent(r.again, it.Cause)
		return true
	}
	if w := p.waiting[it.Queue]; w != nil {
		if it.Cause >= w.Cause && it.At >= w.At {
			return true
		}
		p.take(w)
		w.Cause, w.At = moreUrgent(w.Cause, it.Cause), min(w.At, it.At)
		w.rank = min(w.rank, now.Add(patience(w.Cause)))
		p.put(now, w)
		return true
	}
	if len(p.waiting) >= p.limits.MaxWaiting {
		return false
	}
	p.seq++
	w := &waiter{item: it, rank: now.Add(patience(it.Cause)), seq: p.seq, place: -1}
	p.waiting[it.Queue] = w
	p.put(now, w)
	return true
}

// put lines w up, in the future or in its bucket.
func (p *plan) put(now mail.Time, w *waiter) {
	if w.At > now {
		p.future.push(w)
		return
	}
	w.class = classOf(w.Cause)
	c := &p.classes[w.class]
	b := c.buckets[w.Network]
	if b == nil {
		b = &bucket{network: w.Network, waiters: ordered[waiter]{less: byRank, place: waiterPlace}, place: -1}
		c.buckets[w.Network] = b
	}
	w.box = b
	b.waiters.push(w)
	p.arrange(c, b)
}

// take undoes put.
func (p *plan) take(w *waiter) {
	if w.box == nil {
		p.future.remove(w)
		return
	}
	c, b := &p.classes[w.class], w.box
	w.box = nil
	// The bucket leaves its heap first: without its top it could not be compared.
	if b.place >= 0 {
		c.ready.remove(b)
	}
	b.waiters.remove(w)
	p.arrange(c, b)
}

// arrange brings a bucket's place in ready up to date.
func (p *plan) arrange(c *class, b *bucket) {
	switch {
	case b.waiters.len() == 0:
		if b.place >= 0 {
			c.ready.remove(b)
		}
		delete(c.buckets, b.network)
	case p.full(b.network):
		if b.place >= 0 {
			c.ready.remove(b)
		}
	case b.place >= 0:
		c.ready.fix(b)
	default:
		c.ready.push(b)
	}
}

func (p *plan) full(n netip.Prefix) bool {
	return n.IsValid() && p.limits.PerNetwork > 0 && p.networks[n] >= p.limits.PerNetwork
}

// choose is the waiter that may start now, or nil.
func (p *plan) choose() *waiter {
	if len(p.running) >= p.limits.Sessions {
		return nil
	}
	var best *waiter
	for i := range p.classes {
		b := p.classes[i].ready.top()
		if b == nil || i == background && p.background >= p.limits.Background {
			continue
		}
		if w := b.waiters.top(); best == nil || byRank(w, best) {
			best = w
		}
	}
	return best
}

// Next gives the queues to start now, and counts them as running until Done.
func (p *plan) Next(now mail.Time) []item {
	for w := p.future.top(); w != nil && w.At <= now; w = p.future.top() {
		p.future.remove(w)
		p.put(now, w)
	}
	var out []item
	for w := p.choose(); w != nil; w = p.choose() {
		p.take(w)
		delete(p.waiting, w.Queue)
		p.running[w.Queue] = &running{network: w.Network, class: w.class}
		if w.class == background {
			p.background++
		}
		p.count(w.Network, 1)
		out = append(out, w.item)
	}
	return out
}

// Done says that a queue's session has ended. again is the most urgent cause
// that was added meanwhile; CauseNone: nothing was.
func (p *plan) Done(q spool.QueueName) (again spool.Cause) {
	r := p.running[q]
	if r == nil {
		return spool.CauseNone
	}
	delete(p.running, q)
	if r.class == background {
		p.background--
	}
	p.count(r.network, -1)
	return r.again
}

func (p *plan) count(n netip.Prefix, by int) {
	if !n.IsValid() {
		return
	}
	if p.networks[n] += by; p.networks[n] == 0 {
		delete(p.networks, n)
	}
	for i := range p.classes {
		if b := p.classes[i].buckets[n]; b != nil {
			p.arrange(&p.classes[i], b)
		}
	}
}

// Crowded reports whether a queue that is due waits for a place.
func (p *plan) Crowded() bool { return len(p.waiting) > p.future.len() }

// Wait is the nearest time at which Next may give something without an Add or
// Done before; now, if it would at once; 0 if never.
func (p *plan) Wait(now mail.Time) mail.Time {
	if p.choose() != nil {
		return now
	}
	if w := p.future.top(); w != nil {
		return max(now, w.At)
	}
	return 0
}

// SetLimits changes the limits. What runs goes on.
func (p *plan) SetLimits(l planLimits) {
	if l == p.limits {
		return
	}
	p.limits = l
	for i := range p.classes {
		c := &p.classes[i]
		for _, b := range c.buckets { // the order does not matter: each finds its own place
			p.arrange(c, b)
		}
	}
}

// Known reports whether a queue waits or runs.
func (p *plan) Known(q spool.QueueName) bool { return p.waiting[q] != nil || p.running[q] != nil }

// moreUrgent is the more urgent of two causes.
func moreUrgent(a, b spool.Cause) spool.Cause {
	if a == spool.CauseNone || b != spool.CauseNone && b < a {
		return b
	}
	return a
}
