package spool

import "bsmtpd/mail"

// Claim gives a queue to a session until a time. A claim whose time has passed
// is nobody's: the session that had it has died or hangs.
func (m *Moves) Claim(c Claim) (ClaimResult, error) {
	until := m.claimEnd(&c)
	if until <= m.Now {
		return ClaimResult{}, invalid("a claim of queue %s that is over when it begins; say how long it is to hold", c.Queue)
	}
	q, err := m.queue(c.Queue)
	if err != nil {
		return ClaimResult{}, err
	}
	own := c.Session != 0 && q.Claim != nil && q.Claim.Session == c.Session && q.Claim.Node == c.Node
	denial, retry, err := m.denial(q, own)
	if err != nil {
		return ClaimResult{}, err
	}
	if denial != Granted {
		if q.claimed(m.Now) || q.Next == 0 && retry == 0 { // somebody's, whose schedule row stays; or nothing to change
			return ClaimResult{Denial: denial}, nil
		}
		if err := m.schedule(q, retry, q.Cause); err != nil {
			return ClaimResult{}, err
		}
		return ClaimResult{Denial: denial}, m.putQueue(q)
	}
	cause := c.Cause
	if q.Next != 0 && q.Next <= m.Now && !own {
		cause = urgent(q.Cause, cause)
	}
	since := m.Now
	switch {
	case own:
		since, cause = q.Claim.Since, q.Claim.Cause
	case q.Claim != nil:
		q.LastOutcome = OutcomeExpired
		q.LastWords = "the push session on node " + q.Claim.Node + " was never heard of again"
	}
	if !own {
		q.LastAttempt, q.LastCause, q.Again = m.Now, cause, CauseNone
	}
	if c.Session == 0 {
		c.Session = uint64(m.NewID())
	}
	q.Hold = nil // it has passed, or the claim would have been denied
	q.Claim = &Claimed{Node: c.Node, Session: c.Session, Since: since, Until: until, Cause: cause}
	if err := m.schedule(q, until, CauseTimer); err != nil {
		return ClaimResult{}, err
	}
	return ClaimResult{Cause: cause, Session: c.Session, Until: until}, m.putQueue(q)
}

func (m *Moves) claimEnd(c *Claim) mail.Time {
	until := c.Until
	if c.Life != 0 {
		until = m.Now.Add(c.Life)
	}
	return min(until, m.Now.Add(MaxClaimLife))
}

// denial says why q cannot be claimed, and when to ask again (0: an event will
// bring it back).
func (m *Moves) denial(q *Queue, own bool) (Denial, mail.Time, error) {
	switch {
	case q.Name.IsMailbox():
		return NotPushed, 0, nil
	case q.Messages == 0:
		return Empty, 0, nil
	case q.held(m.Now):
		return Held, q.Hold.Until, nil
	case !own && q.claimed(m.Now):
		return Taken, 0, nil
	case q.Quiet > m.Now:
		return Held, q.Quiet, nil
	}
	s, err := Reader{m.Tx}.Suspended(q.Name, m.Now)
	if err != nil {
		return Granted, 0, err
	}
	if s == nil {
		return Granted, 0, nil
	}
	again := m.Now.Add(m.Set.Retry)
	if s.Hold.Until != 0 {
		again = min(again, s.Hold.Until)
	}
	return Held, again, nil
}

// Finish ends a session and says when the queue is next tried.
func (m *Moves) Finish(c Finish) (Finished, error) {
	q, err := m.queue(c.Queue)
	if err != nil {
		return Finished{}, err
	}
	if c.Damaged {
		if err := m.mend(q); err != nil {
			return Finished{}, err
		}
	}
	if !q.worked(c.Session) {
		if c.Damaged {
			if err := m.arrange(q); err != nil {
				return Finished{}, err
			}
			if err := m.putQueue(q); err != nil {
				return Finished{}, err
			}
		}
		return Finished{Stale: true, Next: q.Next, Left: q.Messages}, nil
	}
	// A node's clock may be behind the machine's time, which never goes back: by
	// that clock every next attempt would be due already, again and again.
	if behind := q.Claim.Since - c.Began; behind > 0 {
		c.Began += behind
		// What is still ahead was said by a clock that had caught up meanwhile.
		if c.EarliestRetry != 0 && c.EarliestRetry <= m.Now {
			c.EarliestRetry += behind
		}
	}
	q.Claim = nil
	c.Began = min(c.Began, m.Now) // or ahead
	q.LastAttempt, q.LastCause = c.Began, c.Cause
	if !q.Failing || !c.Outcome.learnedNothing() {
		q.LastOutcome, q.LastWords, q.LastRemote, q.LastBanner = c.Outcome, clip(c.Words), clip(c.Remote), clip(c.Banner)
	}
	if c.Sent > 0 {
		q.LastSuccess = m.Now
	}
	switch {
	case c.Outcome.failed():
		q.Failing = true
		q.Failures++
	case !c.Outcome.learnedNothing():
		q.Failing, q.Failures = false, 0
	}
	if err := m.scheduleAfter(q, &c); err != nil {
		return Finished{}, err
	}
	q.Again = CauseNone
	if q.Next != 0 && q.Next <= m.Now {
		m.effect(EffectDue, q.Name, q.Cause)
	}
	return Finished{Next: q.Next, Left: q.Messages}, m.putQueue(q)
}

func (m *Moves) scheduleAfter(q *Queue, c *Finish) error {
	if q.Messages == 0 {
		return m.schedule(q, 0, CauseNone)
	}
	if q.held(m.Now) {
		return m.schedule(q, q.Hold.Until, CauseOperator)
	}
	late, err := m.cameAfter(q.Name, c.SeenTo)
	if err != nil {
		return err
	}
	failed := c.Outcome.failed()
	switch {
	case q.Quiet > m.Now:
		return m.schedule(q, q.Quiet, urgent(q.Again, CauseTimer))
	case q.Again != CauseNone && (failed || q.Again.Urgent()):
		// A trigger came while the session was at work, and it did not see to
		// everything: a login must not wait for the timer, nor a message that an
		// operator released or brought back when the session had passed it.
		return m.schedule(q, m.Now, q.Again)
	case failed:
		return m.schedule(q, retryQueue(m.Set, q, m.Now), CauseTimer)
	case late:
		return m.schedule(q, m.Now, CauseNew)
	case c.EarliestRetry != 0:
		at := max(c.EarliestRetry, m.Now)
		if q.Name.IsAccount() { // B3, however long a message is deferred
			at = min(at, RetryAccount(m.Set, c.Began, m.Now))
		}
		return m.schedule(q, at, CauseTimer)
	}
	return m.schedule(q, RetryAccount(m.Set, c.Began, m.Now), CauseTimer)
}

// cameAfter reports whether a queue has mail above an ID. A damaged row does not
// count: no session will ever see it.
func (m *Moves) cameAfter(name QueueName, id mail.ID) (bool, error) {
	if id == 0 {
		return false, nil
	}
	var err error
	for range (Reader{m.Tx}).Messages(name, id, &err) {
		return true, nil
	}
	if undecodable(err) {
		err = nil
	}
	return false, err
}
