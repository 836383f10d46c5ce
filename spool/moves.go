package spool

import (
	"fmt"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Moves makes the moves of one command. The machine makes one for each command,
// with a Tx that is thrown away if the move returns an error.
//
// An error of Kind Broken, Invalid or Conflict is an answer to whoever proposed
// the command; any other error is the disk's and must stop the node. Broken, of
// rows that do not decode, is rare: see aside.go.
type Moves struct {
	Tx  kv.Tx
	Now mail.Time // machine time: it never goes back
	Set Settings

	// NewID gives the IDs of this command, each once.
	NewID func() mail.ID

	// Charge takes room of an account for a message, or says why not. Refund
	// gives it back. The spool does not know what a quota is.
	Charge func(login mail.Login, size int64) (TargetResult, error)
	Refund func(login mail.Login, bytes, messages int64) error

	// Effects are what the rows now ask for.
	Effects []Effect
}

func (m *Moves) effect(kind EffectKind, q QueueName, cause Cause) {
	m.Effects = append(m.Effects, Effect{Kind: kind, Queue: q, Cause: cause, Login: q.Login()})
}

// queue reads a queue's row, or makes an empty one, or a new one of a damaged.
func (m *Moves) queue(name QueueName) (*Queue, error) {
	q, _, err := Reader{m.Tx}.Queue(name)
	if undecodable(err) {
		return m.rebuild(name, err)
	}
	if err != nil {
		return nil, err
	}
	return &q, nil
}

// putQueue writes a queue's row. An empty queue to the world is forgotten, also
// when its session died. An account's row stays, it tells about the last attempt
// and login; but none is made where nothing has happened yet.
func (m *Moves) putQueue(q *Queue) error {
	nothing := q.Name.IsOut() || *q == Queue{Name: q.Name}
	if q.Messages == 0 && !q.claimed(m.Now) && q.Hold == nil && nothing {
		if err := m.schedule(q, 0, CauseNone); err != nil {
			return err
		}
		return m.Tx.Delete(queueKey(q.Name))
	}
	return m.Tx.Set(queueKey(q.Name), kv.Encode(q))
}

// schedule sets when and why a queue is next tried, and keeps the schedule row
// in step; at 0 takes it off the schedule.
func (m *Moves) schedule(q *Queue, at mail.Time, cause Cause) error {
	if q.Next != 0 && q.Next != at {
		if err := m.Tx.Delete(schedKey(q.Next, q.Name)); err != nil {
			return err
		}
	}
	q.Next, q.Cause = at, cause
	if at == 0 {
		q.Cause = CauseNone
		return nil
	}
	return m.Tx.Set(schedKey(at, q.Name), []byte{byte(cause)})
}

// claimed reports whether a session may be at work on q now.
func (q *Queue) claimed(now mail.Time) bool { return q.Claim != nil && q.Claim.Until > now }

// held reports whether q is held as a whole.
func (q *Queue) held(now mail.Time) bool {
	return q.Hold != nil && (q.Hold.Until == 0 || q.Hold.Until > now)
}

// urgent is the more urgent of two causes.
func urgent(a, b Cause) Cause {
	if a == CauseNone || b != CauseNone && b < a {
		return b
	}
	return a
}

// arrange gives q its next event after a change outside a session: mail came or
// went, a hold began or ended. A session at work keeps its own row.
func (m *Moves) arrange(q *Queue) error {
	switch {
	case q.Name.IsMailbox():
		return nil
	case q.claimed(m.Now):
		return nil
	case q.Messages == 0:
		return m.schedule(q, 0, CauseNone)
	case q.held(m.Now):
		return m.schedule(q, q.Hold.Until, CauseOperator)
	case q.Next != 0:
		return nil
	case q.Failing:
		return m.schedule(q, retryQueue(m.Set, q, m.Now), CauseTimer)
	}
	return m.schedule(q, m.Now, CauseNew)
}

// due makes a queue be tried at once, as far as nothing stands against it.
func (m *Moves) due(q *Queue, cause Cause) (Denial, error) {
	switch {
	case q.Name.IsMailbox():
		return NotPushed, nil
	case q.claimed(m.Now):
		q.Again = urgent(q.Again, cause)
		m.effect(EffectDue, q.Name, cause)
		return Taken, nil
	case q.Messages == 0:
		return Empty, nil
	case q.held(m.Now):
		return Held, nil
	}
	at := max(m.Now, q.Quiet)
	if q.Next != 0 && q.Next <= at {
		cause = urgent(q.Cause, cause)
	}
	m.effect(EffectDue, q.Name, cause)
	return Granted, m.schedule(q, at, cause)
}

// insert puts a message into its queue and gives the queue its next event. The
// room must have been charged, and the body counted, before.
func (m *Moves) insert(msg *Message) error {
	q, err := m.queue(msg.Queue) // first: a damaged row is made of the messages that are there
	if err != nil {
		return err
	}
	if err := m.putMessage(msg); err != nil {
		return err
	}
	if err := m.Tx.Set(whereKey(msg.ID, msg.Queue), nil); err != nil {
		return err
	}
	if msg.Expires != 0 {
		if err := m.Tx.Set(timedKey(expiryPrefix, msg.Expires, msg.ID, msg.Queue), nil); err != nil {
			return err
		}
	}
	q.Messages++
	q.Bytes += msg.Size
	if q.claimed(m.Now) { // the session at work takes it along
		m.effect(EffectDue, q.Name, CauseNew)
	} else if !q.Failing {
		if _, err := m.due(q, CauseNew); err != nil {
			return err
		}
	}
	if err := m.arrange(q); err != nil {
		return err
	}
	return m.putQueue(q)
}

func (m *Moves) putMessage(msg *Message) error {
	return m.Tx.Set(messageKey(msg.Queue, msg.ID), kv.Encode(msg))
}

// takeOut removes a message's rows from its queue, whose row the caller holds
// and writes back, and refunds its room. The body keeps its count: see unref.
func (m *Moves) takeOut(q *Queue, msg *Message) error {
	for _, key := range [][]byte{messageKey(msg.Queue, msg.ID), whereKey(msg.ID, msg.Queue)} {
		if err := m.Tx.Delete(key); err != nil {
			return err
		}
	}
	if msg.Expires != 0 {
		if err := m.Tx.Delete(timedKey(expiryPrefix, msg.Expires, msg.ID, msg.Queue)); err != nil {
			return err
		}
	}
	q.Messages--
	q.Bytes -= msg.Size
	if msg.Hold != nil {
		q.Held = max(0, q.Held-1)
	}
	return m.refund(msg.Queue, msg.Size, 1)
}

// Forget drops the row of an empty queue whose account is being removed.
func (m *Moves) Forget(name QueueName) error {
	q, err := m.queue(name)
	if err != nil {
		return err
	}
	if q.Messages > 0 {
		return &mail.Error{Op: "spool", Kind: mail.Conflict, Err: fmt.Errorf("queue %s still holds %d messages", name, q.Messages)}
	}
	if err := m.schedule(q, 0, CauseNone); err != nil {
		return err
	}
	return m.Tx.Delete(queueKey(name))
}
