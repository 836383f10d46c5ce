package spool

// Trigger makes a queue due at once (B7).
func (m *Moves) Trigger(c Trigger) (Triggered, error) {
	q, err := m.queue(c.Queue)
	if err != nil {
		return Triggered{}, err
	}
	denial, err := m.due(q, c.Cause)
	if err != nil || denial == NotPushed || denial == Empty {
		return Triggered{Messages: q.Messages, Denial: denial}, err
	}
	return Triggered{Messages: q.Messages, Denial: denial}, m.putQueue(q)
}

// LoginTrigger is told that a customer came online. At most one login in
// Settings.LoginWindow starts an attempt (B6); the window begins with a login
// that found mail to push: what is held does not count. Any other login that is not debounced still means
// that the server can be reached again: new mail is tried at once.
func (m *Moves) LoginTrigger(name QueueName) (debounced bool, messages int64, err error) {
	q, err := m.queue(name)
	if err != nil {
		return false, 0, err
	}
	q.LastLogin = m.Now
	if q.LastLoginTrigger != 0 && m.Now < q.LastLoginTrigger.Add(m.Set.LoginWindow) {
		q.Debounced++
		return true, q.Messages, m.putQueue(q)
	}
	q.Failing, q.Failures = false, 0
	if q.Messages <= q.Held { // nothing that an attempt could push
		return false, q.Messages, m.putQueue(q)
	}
	denial, err := m.due(q, CauseLogin)
	if err != nil {
		return false, 0, err
	}
	if denial == Granted || denial == Taken {
		q.LastLoginTrigger, q.Debounced = m.Now, 0
	}
	return false, q.Messages, m.putQueue(q)
}

// Sweep looks at one stretch of all queues (B4).
func (m *Moves) Sweep(c Sweep) (Swept, error) {
	if c.Limit < 1 || c.Limit > MaxItems {
		return Swept{}, invalid("a sweep over %d queues; 1 to %d", c.Limit, MaxItems)
	}
	if c.After == "" && !c.RepairOnly {
		if err := m.Tx.Set([]byte(sweepKey), u64(nil, uint64(m.Now))); err != nil {
			return Swept{}, err
		}
	}
	if c.After == "" {
		if err := m.mendOwed(); err != nil {
			return Swept{}, err
		}
	}
	var out Swept
	queues, err := m.stretch(&c, &out)
	if err != nil {
		return Swept{}, err
	}
	for i := range queues {
		if err := m.sweepOne(&queues[i], c.RepairOnly, &out); err != nil {
			return Swept{}, err
		}
	}
	return out, nil
}

// stretch reads the queues that a sweep is about, and makes damaged rows anew.
func (m *Moves) stretch(c *Sweep, out *Swept) ([]Queue, error) {
	lower, upper := prefixRange([]byte(queuePrefix))
	if c.After != "" {
		lower = after(queueKey(c.After))
	}
	var queues []Queue
	var damaged []QueueName
	var why []error
	var err error
	for k, v := range m.Tx.Scan(lower, upper, &err) {
		name := QueueName(k[len(queuePrefix):])
		if q, derr := decodeQueue(name, v); derr != nil {
			damaged, why = append(damaged, name), append(why, derr)
		} else {
			queues = append(queues, q)
		}
		if len(queues)+len(damaged) == c.Limit {
			out.Last = name
			break
		}
	}
	for i := 0; err == nil && i < len(damaged); i++ {
		out.Damaged++
		_, err = m.rebuild(damaged[i], why[i])
	}
	return queues, err
}

func (m *Moves) sweepOne(q *Queue, repairOnly bool, out *Swept) error {
	if q.Messages == 0 || q.Name.IsMailbox() || q.held(m.Now) && q.Hold.Until == 0 {
		return nil
	}
	lost := q.Next == 0
	if !lost {
		v, err := m.Tx.Get(schedKey(q.Next, q.Name))
		if err != nil {
			return err
		}
		lost = len(v) != 1 // see decodeDue
	}
	switch {
	case lost:
		out.Repaired++
		at := m.Now
		if q.claimed(m.Now) {
			at = q.Claim.Until
		} else if q.held(m.Now) {
			at = q.Hold.Until
		}
		if err := m.schedule(q, at, CauseSweep); err != nil {
			return err
		}
	case repairOnly || q.Next <= m.Now || !q.Name.IsAccount() || q.claimed(m.Now) || q.held(m.Now) || q.Quiet > m.Now:
		return nil
	default:
		out.Due++
		if err := m.schedule(q, m.Now, CauseSweep); err != nil {
			return err
		}
	}
	if q.Next <= m.Now {
		m.effect(EffectDue, q.Name, CauseSweep)
	}
	return m.putQueue(q)
}
