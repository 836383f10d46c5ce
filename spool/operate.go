package spool

import (
	"fmt"
	"strings"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// quietFor is how long no session may begin on a queue whose session was asked
// to end for an operator's change. The change is proposed again much sooner.
const quietFor = 10_000_000 // µs

// Act does an operator's action to messages. Items that are gone are counted,
// items that may be on the wire at this moment are handed back as Busy: what an
// operator removed must not arrive after he was told so.
func (m *Moves) Act(c Act) (Acted, error) {
	if len(c.Items) > MaxItems {
		return Acted{}, invalid("%d messages in one command; at most %d", len(c.Items), MaxItems)
	}
	var out Acted
	touched := map[QueueName]*Queue{} // read by name only, never ranged over
	var order []*Queue
	for _, it := range c.Items {
		q := touched[it.Queue]
		if q == nil {
			var err error
			if q, err = m.queue(it.Queue); err != nil {
				return Acted{}, err
			}
			touched[it.Queue] = q
			order = append(order, q)
		}
		if err := m.actOne(q, &c, it, &out); err != nil {
			return Acted{}, err
		}
	}
	for _, q := range order {
		if err := m.afterAct(q, &c, &out); err != nil {
			return Acted{}, err
		}
	}
	return out, nil
}

func (m *Moves) afterAct(q *Queue, c *Act, out *Acted) error {
	if c.Action == ActRetry || c.Action == ActRelease || c.Action == ActRequeue {
		if _, err := m.due(q, CauseOperator); err != nil {
			return err
		}
	}
	busy := false
	for _, it := range out.Busy {
		busy = busy || it.Queue == q.Name
	}
	if busy {
		q.Quiet = m.Now + quietFor
		m.effect(EffectStop, q.Name, CauseOperator)
	} else if q.Quiet > m.Now && !q.claimed(m.Now) {
		q.Quiet = 0
		if q.Next > m.Now {
			if _, err := m.due(q, q.Cause); err != nil {
				return err
			}
		}
	}
	if err := m.arrange(q); err != nil {
		return err
	}
	return m.putQueue(q)
}

func (m *Moves) actOne(q *Queue, c *Act, it Item, out *Acted) error {
	if c.Action == ActRequeue {
		return m.requeue(q, it, out)
	}
	msg, ok, err := Reader{m.Tx}.Message(it.Queue, it.ID)
	if undecodable(err) {
		out.Refused = append(out.Refused, fmt.Sprintf("%s: %v; it was set aside", it.ID, err))
		return m.mend(q)
	}
	if err != nil {
		return err
	}
	if !ok {
		out.Missing++
		return nil
	}
	if q.claimed(m.Now) && (c.Action == ActHold || c.Action == ActBounce || c.Action == ActRemove) {
		out.Busy = append(out.Busy, it)
		return nil
	}
	out.Done++
	switch c.Action {
	case ActHold:
		if msg.Hold == nil {
			q.Held++
		}
		msg.Hold = &Hold{By: c.By, Reason: c.Reason, At: m.Now}
		return m.putMessage(&msg)
	case ActRelease, ActRetry:
		if c.Action == ActRelease && msg.Hold != nil {
			msg.Hold = nil
			q.Held = max(0, q.Held-1)
		}
		msg.RetryAt = 0
		return m.putMessage(&msg)
	case ActBounce:
		return m.giveUp(q, &msg, FailOperator, func(r *Recipient) mail.Reply {
			if r.Last.Code != 0 {
				return r.Last
			}
			return mail.Reply{Code: 554, Status: mail.Status{5, 4, 0}, Text: strings.TrimSuffix("returned by the operator: "+c.Reason, ": ")}
		})
	case ActRemove:
		return m.trash(q, &msg, c)
	}
	return invalid("action %d is not known", c.Action)
}

// giveUp takes a message out and owes its sender a bounce for all recipients
// that are left.
func (m *Moves) giveUp(q *Queue, msg *Message, cause FailCause, reply func(*Recipient) mail.Reply) error {
	if err := m.takeOut(q, msg); err != nil {
		return err
	}
	to := reported(msg, NotifyFailed, cause, reply, m.Now)
	if len(to) == 0 {
		return m.unref(msg.Body)
	}
	return m.owe(msg, to) // the message's count of the body becomes the bounce's
}

// trash takes a message out and keeps it where requeue finds it.
func (m *Moves) trash(q *Queue, msg *Message, c *Act) error {
	if err := m.takeOut(q, msg); err != nil {
		return err
	}
	r := Removed{Message: *msg, At: m.Now, By: c.By, Reason: c.Reason, Until: m.Now.Add(m.Set.TrashLife)}
	if err := m.Tx.Set(timedKey(trashExpiry, r.Until, msg.ID, msg.Queue), nil); err != nil {
		return err
	}
	return m.Tx.Set(trashKey(msg.ID, msg.Queue), kv.Encode(r))
}

func (m *Moves) requeue(q *Queue, it Item, out *Acted) error {
	v, err := m.Tx.Get(trashKey(it.ID, it.Queue))
	if err != nil {
		return err
	}
	if v == nil {
		out.Missing++
		return nil
	}
	r, err := decodeRemoved(v, it.ID, it.Queue)
	if err != nil {
		out.Refused = append(out.Refused, fmt.Sprintf("%s: %v; it was set aside", it.ID, err))
		return m.setAsideRemoved(it, err)
	}
	if login := it.Queue.Login(); login != "" {
		res, err := m.Charge(login, r.Message.Size)
		if undecodable(err) {
			out.Refused = append(out.Refused, fmt.Sprintf("%s: %v", it.ID, err))
			return nil
		}
		if err != nil {
			return err
		}
		switch res.Refusal {
		case OverQuota:
			out.Refused = append(out.Refused, fmt.Sprintf("%s: account %s is full: it holds %s of %s",
				it.ID, login, mail.Size(res.Usage), mail.Size(res.Quota)))
			return nil
		case NoAccount:
			out.Refused = append(out.Refused, fmt.Sprintf("%s: there is no account %s any more", it.ID, login))
			return nil
		}
	}
	if err := m.dropTrash(it.ID, it.Queue, r.Until); err != nil {
		return err
	}
	msg := r.Message
	msg.RetryAt, msg.Hold = 0, nil
	if msg.Expires != 0 {
		msg.Expires = m.Now.Add(m.Set.OutLife)
	}
	out.Done++
	if err := m.putQueue(q); err != nil { // insert reads the row anew
		return err
	}
	if err := m.insert(&msg); err != nil {
		return err
	}
	fresh, err := m.queue(q.Name)
	if err != nil {
		return err
	}
	*q = *fresh
	return nil
}

func (m *Moves) dropTrash(id mail.ID, q QueueName, until mail.Time) error {
	if err := m.Tx.Delete(timedKey(trashExpiry, until, id, q)); err != nil {
		return err
	}
	return m.Tx.Delete(trashKey(id, q))
}

func decodeRemoved(v []byte, id mail.ID, q QueueName) (Removed, error) {
	var r Removed
	if err := kv.Decode(v, &r); err != nil {
		return r, brokenRow(fmt.Sprintf("removed message %s", id), err)
	}
	r.Message.ID, r.Message.Queue = id, q
	return r, nil
}

// HoldQueue holds a queue as a whole or lifts that. A session at work is asked
// to end after the message in flight.
func (m *Moves) HoldQueue(c HoldQueue) error {
	if !c.Queue.Valid() {
		return invalid("%q is not a queue", c.Queue)
	}
	q, err := m.queue(c.Queue)
	if err != nil {
		return err
	}
	if c.Release {
		q.Hold = nil
		if _, err := m.due(q, CauseOperator); err != nil {
			return err
		}
	} else {
		q.Hold = &Hold{By: c.By, Reason: c.Reason, At: m.Now, Until: c.Until}
		if q.claimed(m.Now) {
			m.effect(EffectStop, q.Name, CauseOperator)
		}
	}
	if err := m.arrange(q); err != nil {
		return err
	}
	return m.putQueue(q)
}

// Suspend stops delivery by a rule, or lifts one. Queues under the rule keep
// their schedule; a claim for one is denied.
func (m *Moves) Suspend(c Suspend) error {
	if c.Scope != ScopeAll && !QueueName(c.Scope).Valid() {
		return invalid("%q is no scope: \"all\" or a queue such as account/jansen", c.Scope)
	}
	if !c.Resume {
		m.effect(EffectStop, QueueName(c.Scope), CauseOperator)
		return m.Tx.Set(suspendKey(c.Scope), kv.Encode(Hold{By: c.By, Reason: c.Reason, At: m.Now, Until: c.Until}))
	}
	v, err := m.Tx.Get(suspendKey(c.Scope))
	if err != nil {
		return err
	}
	if v == nil {
		return &mail.Error{Op: "spool", Kind: mail.NotFound, Err: fmt.Errorf("delivery of %s is not suspended", c.Scope)}
	}
	if err := m.Tx.Delete(suspendKey(c.Scope)); err != nil {
		return err
	}
	if q := QueueName(c.Scope); q.Valid() {
		_, err := m.Trigger(Trigger{Queue: q, Cause: CauseOperator, By: c.By})
		return err
	}
	return nil // the queues come back within Settings.Retry, or by a sweep
}
