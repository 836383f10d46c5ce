package spool

import (
	"slices"

	"bsmtpd/mail"
)

// Settle records what a session learned. What it says was sent has left, and is
// believed even of a session whose claim has passed to another; a failure or a
// deferral only of the session that holds the claim.
func (m *Moves) Settle(c Settle) (Settled, error) {
	if len(c.Results) > MaxResults {
		return Settled{}, invalid("%d results in one command; at most %d", len(c.Results), MaxResults)
	}
	q, err := m.queue(c.Queue)
	if err != nil {
		return Settled{}, err
	}
	out := Settled{Stale: !q.worked(c.Session)}
	for i := range c.Results {
		removed, owed, err := m.settleOne(q, &c.Results[i], out.Stale)
		if undecodable(err) { // it must not keep the others from being settled
			out.Damaged++
			continue
		}
		if err != nil {
			return Settled{}, err
		}
		if removed {
			out.Removed++
		}
		out.Owed += owed
	}
	if out.Damaged > 0 {
		if err := m.mend(q); err != nil {
			return Settled{}, err
		}
	}
	if err := m.arrange(q); err != nil {
		return Settled{}, err
	}
	return out, m.putQueue(q)
}

// worked reports whether a session is the one that q was given to.
func (q *Queue) worked(session uint64) bool {
	return session != 0 && q.Claim != nil && q.Claim.Session == session
}

func (m *Moves) settleOne(q *Queue, res *Result, stale bool) (removed bool, owed int, err error) {
	msg, ok, err := Reader{m.Tx}.Message(q.Name, res.ID)
	if err != nil || !ok {
		return false, 0, err
	}
	var told []OwedRecipient
	changed, deferred := false, false
	for _, rr := range res.To {
		i := slices.IndexFunc(msg.To, func(r Recipient) bool { return r.Address == rr.Address })
		if i < 0 || stale && rr.Fate != Sent {
			continue
		}
		rr.Reply.Text = clip(rr.Reply.Text)
		changed = true
		switch rr.Fate {
		case Sent, Failed:
			if o, ok := tell(&msg, msg.To[i], rr, res.Remote, m.Now); ok {
				told = append(told, o)
			}
			msg.To = slices.Delete(msg.To, i, i+1)
		case Deferred:
			msg.To[i].Last = rr.Reply
			deferred = true
		}
	}
	if !changed {
		return false, 0, nil
	}
	if deferred {
		msg.Attempts++
		msg.RetryAt = res.RetryAt
	}
	if len(told) > 0 {
		if err := m.oweKeeping(&msg, told); err != nil {
			return false, 0, err
		}
	}
	if len(msg.To) > 0 {
		return false, len(told), m.putMessage(&msg)
	}
	if err := m.takeOut(q, &msg); err != nil {
		return false, 0, err
	}
	return true, len(told), m.unref(msg.Body)
}

// tell says what the sender is to hear about a recipient that left the queue.
func tell(msg *Message, r Recipient, rr RecipientResult, remote string, now mail.Time) (OwedRecipient, bool) {
	o := OwedRecipient{Address: r.Address, Original: r.Original, Reply: rr.Reply, Remote: clip(remote), Last: now}
	switch {
	case msg.From.IsNull():
		return o, false
	case rr.Fate == Failed && r.Notify.OnFailure():
		o.Action, o.Cause = NotifyFailed, FailRemote
		return o, true
	case rr.Fate == Sent && rr.Relayed && r.Notify.OnSuccess():
		o.Action, o.Cause = NotifyRelayed, FailRelayed
		return o, true
	}
	return o, false
}
