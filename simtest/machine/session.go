package machine

import (
	"net/netip"

	"bsmtpd/delivery"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// session pushes one queue, as delivery's do: it claims, reads messages a page at
// a time, hands them over, reports, and says how it ended.
type session struct {
	queue   spool.QueueName
	id      uint64
	until   mail.Time // the end of the claim, as the spool said
	cause   spool.Cause
	began   mail.Time
	page    []spool.Message
	after   mail.ID
	results []spool.Result // not reported yet
	seen    mail.ID
	retry   mail.Time // the least of what stays
	sent    int
	halted  bool
	lost    bool
}

// pageOf is how many messages a session reads at once: what it has read may have
// been changed when it comes to it.
const pageOf = 3

// turn is a turn of the pusher's loop: hints and due rows go to the planner, and
// sessions begin.
func (t *town) turn() {
	hints := t.hints
	t.hints = nil
	for _, e := range hints {
		switch e.Kind {
		case spool.EffectDue:
			t.add(delivery.PlanItem{Queue: e.Queue, Cause: e.Cause, At: t.clock})
		case spool.EffectStop:
			for _, s := range t.working() {
				if s.queue == e.Queue || e.Queue == spool.QueueName(spool.ScopeAll) {
					s.halted = true
				}
			}
		}
	}
	due, err := t.node.spool().Due(t.clock, 1000)
	must(err)
	for _, d := range due {
		if !t.plan.Known(d.Queue) {
			t.add(delivery.PlanItem{Queue: d.Queue, Cause: d.Cause, At: d.At})
		}
	}
	plan := t.plan
	for _, it := range plan.Next(t.clock) {
		t.begin(it)
		if t.plan != plan { // the power failed
			return
		}
	}
}

func (t *town) add(it delivery.PlanItem) {
	if !it.Queue.IsMailbox() {
		if it.Queue.IsAccount() {
			it.Network = netip.MustParsePrefix("203.0.113.0/24")
		}
		t.plan.Add(t.clock, it)
	}
}

func (t *town) begin(it delivery.PlanItem) {
	s := &session{queue: it.Queue, began: t.clock}
	replies, ok := t.submit(proposal{fields: spool.Claim{Queue: s.queue, Node: "n1", Life: claimLife, Cause: it.Cause}})
	if !ok {
		return
	}
	got := replies[0].Value.(spool.ClaimResult)
	if got.Denial != spool.Granted {
		t.ended(s.queue)
		return
	}
	s.cause, s.id, s.until = got.Cause, got.Session, got.Until
	t.sessions[s.queue] = s
}

// ended frees a queue's place. What was added meanwhile is looked up in the row.
func (t *town) ended(q spool.QueueName) {
	delete(t.sessions, q)
	if t.plan.Done(q) == spool.CauseNone {
		return
	}
	row, ok, err := t.node.spool().Queue(q)
	must(err)
	if ok && row.Next != 0 && row.Next <= t.clock {
		t.add(delivery.PlanItem{Queue: q, Cause: row.Cause, At: row.Next})
	}
}

// holds reports whether the claim is surely the session's for a while.
func (t *town) holds(s *session) bool { return t.clock.Add(claimLife/10) < s.until }

// push does one step of a session.
func (t *town) push(s *session) {
	switch {
	case s.halted || s.lost || !t.holds(s):
		t.finish(s)
	case t.happens(25):
		t.fault("a server is not to be reached")
		s.lost = true
	case len(s.results) > 0 && t.rng.IntN(3) == 0:
		t.report(s)
	case t.rng.IntN(12) == 0:
		t.extend(s)
	case len(s.page) > 0:
		m := s.page[0]
		s.page = s.page[1:]
		t.consider(s, &m)
	case !t.read(s):
		t.finish(s)
	}
}

// read reads a page; false: there is nothing more.
func (t *town) read(s *session) bool {
	var err error
	for m := range t.node.spool().Messages(s.queue, s.after, &err) {
		s.page = append(s.page, m)
		s.after = m.ID
		if len(s.page) == pageOf {
			break
		}
	}
	must(err)
	return len(s.page) > 0
}

// consider decides about a message as delivery's feed does.
func (t *town) consider(s *session, m *spool.Message) {
	s.seen = max(s.seen, m.ID)
	switch {
	case m.Hold != nil:
	case m.RetryAt > t.clock && !s.cause.Urgent():
		s.stays(m.RetryAt)
	default:
		t.hand(s, m)
	}
}

func (s *session) stays(until mail.Time) {
	if s.retry == 0 || until < s.retry {
		s.retry = until
	}
}

// hand hands a message over to the customer's server, which takes it or not. What
// a server was given must wait for it (2), in order (4).
func (t *town) hand(s *session, m *spool.Message) {
	it := spool.Item{Queue: s.queue, ID: m.ID}
	if msg := t.model.queues[it]; !t.tried[it] && s.queue.IsAccount() && msg != nil && !msg.moved {
		if m.ID < t.first[s.queue] {
			fail(4, "%s was first tried after %s, which came later", m.ID, t.first[s.queue])
		}
		t.first[s.queue] = m.ID
	}
	t.tried[it] = true
	r := spool.Result{ID: m.ID, Remote: "mx.example"}
	for _, to := range m.To {
		rr := spool.RecipientResult{Address: to.Address, Fate: spool.Sent, Reply: mail.Reply{Code: 250, Text: "ok"}, Relayed: t.rng.IntN(4) == 0}
		switch {
		case t.happens(8):
			rr.Fate, rr.Reply.Code = spool.Failed, 550
		case t.happens(5):
			rr.Fate, rr.Reply.Code = spool.Deferred, 451
			r.RetryAt = t.clock + mail.Time(t.rng.Int64N(3*3600*1_000_000))
			s.stays(r.RetryAt)
		default:
			t.arrives(copyKey{m.ID, s.queue, to.Address})
			s.sent++
		}
		r.To = append(r.To, rr)
	}
	if t.happens(30) {
		t.fault("the connection is lost before the final reply")
		t.excuse(s.queue, []spool.Result{r})
		s.lost = true
		return
	}
	s.results = append(s.results, r)
}

func (t *town) arrives(k copyKey) {
	if f := t.model.copies[k]; f.place != queued {
		fail(2, "%s for %s was delivered, though it is %s", k.id, k.to, f.place)
	}
	if t.got[k]++; t.got[k] > 1+t.excused[k] {
		fail(2, "%s for %s was delivered %d times; %d can be explained", k.id, k.to, t.got[k], 1+t.excused[k])
	}
}

// excuse notes copies whose delivery may go unrecorded.
func (t *town) excuse(q spool.QueueName, results []spool.Result) {
	for _, r := range results {
		for _, rr := range r.To {
			if rr.Fate == spool.Sent {
				t.excused[copyKey{r.ID, q, rr.Address}]++
			}
		}
	}
}

// report reports what the session has learned; false: the power failed.
func (t *town) report(s *session) bool {
	c := spool.Settle{Queue: s.queue, Session: s.id, Results: s.results}
	t.bugs.settle(&c, t.node.spool(), func(id mail.ID) bool { return id <= s.after })
	if _, ok := t.submit(proposal{fields: c}); !ok {
		return false
	}
	for _, r := range s.results { // what the record does not say any more may be sent again: it was removed meanwhile
		for _, rr := range r.To {
			if k := (copyKey{r.ID, s.queue, rr.Address}); rr.Fate == spool.Sent && !t.model.copies[k].sent {
				t.excused[k]++
			}
		}
	}
	s.results = nil
	return true
}

func (t *town) extend(s *session) {
	replies, ok := t.submit(proposal{fields: spool.Claim{Queue: s.queue, Node: "n1", Session: s.id, Life: claimLife, Cause: s.cause}})
	if !ok {
		return
	}
	if got := replies[0].Value.(spool.ClaimResult); got.Denial == spool.Granted {
		s.until = got.Until
	}
}

// finish ends a session. What it has read and not handed out it has not seen.
func (t *town) finish(s *session) {
	if len(s.results) > 0 && !t.report(s) {
		return
	}
	c := spool.Finish{Queue: s.queue, Session: s.id, Outcome: spool.OutcomeDone, Began: s.began, Words: "bye", Sent: s.sent,
		EarliestRetry: s.retry, Cause: s.cause, SeenTo: max(s.seen, 1)}
	switch {
	case s.lost:
		c.Outcome = []spool.Outcome{spool.OutcomeFailed, spool.OutcomeLost}[t.rng.IntN(2)]
	case s.seen == 0:
		c.Outcome = spool.OutcomeNothing
	}
	if _, ok := t.submit(proposal{fields: c}); ok {
		t.ended(s.queue)
	}
}

// die ends a session without a word.
func (t *town) die(s *session) {
	t.fault("a session dies")
	t.excuse(s.queue, s.results)
	t.ended(s.queue)
}
