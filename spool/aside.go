package spool

import (
	"bytes"
	"fmt"
	"iter"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// A row that does not decode must stop nothing but itself (C15). It is set aside
// under asidePrefix as it is, for somebody to look at, and what it was the sum of
// is counted anew (kv.SetAside). Every replica does so alike, for every replica has the same
// bytes there: they came from the log. Bytes that only this disk lost are no such
// row: they are a *kv.Damage, and the node stops (cluster.Machine).
//
//	q/   made anew from the messages. Who was at work on it, and whether it was
//	     held, is not known: it counts as claimed for lostClaim
//	m/   set aside, the room refunded. Its body stays, for whoever mends the row
//	B/   stays: without it the body would look like one of a single chunk. Its
//	     users come and go uncounted, and the body is left over in the end
//	o/   set aside by the sweep, by Waive and by the Enqueue that settles it
//	tr/  set aside when somebody wants it back, or at its end
//	x/   in force until somebody resumes: better no delivery than a wrong one
//	w/   counted anew
//	s/, e/, te/, g/ with a bad key: dropped; the sweep writes the schedule anew

// lostClaim is how long a queue whose row was lost counts as claimed: a session
// may be at work. It is claim_life's default.
const lostClaim = 10 * time.Minute

// lostNode is whose claim that is.
const lostNode = "unknown, for the row of the queue was damaged"

// Aside is a row that was set aside.
type Aside = kv.Aside

// Aside gives the rows that were set aside, after a key.
func (r Reader) Aside(from string, err *error) iter.Seq[Aside] {
	return func(yield func(Aside) bool) {
		lower, upper := prefixRange([]byte(asidePrefix))
		if from != "" {
			lower = after([]byte(asidePrefix + from))
		}
		for k, v := range r.R.Scan(lower, upper, err) {
			a := Aside{Key: string(k[len(asidePrefix):])}
			if derr := kv.Decode(v, &a); derr != nil {
				a.Why, a.Value = derr.Error(), bytes.Clone(v)
			}
			if !yield(a) {
				return
			}
		}
	}
}

// undecodable reports an error about a row that is there and says nothing.
func undecodable(err error) bool { return mail.KindOf(err) == mail.Broken && !kv.IsDamage(err) }

// setAside moves a row that does not decode out of the way.
func (m *Moves) setAside(key []byte, q QueueName, why error) error {
	m.report(q, why)
	return kv.SetAside(m.Tx, key, int64(m.Now))
}

// report tells the operator of a row that is damaged.
func (m *Moves) report(q QueueName, why error) {
	m.Effects = append(m.Effects, Effect{Kind: EffectDamaged, Queue: q, Login: q.Login(), Text: clip(why.Error())})
}

// refund gives room back. A row of usage that is damaged keeps no message in its
// queue.
func (m *Moves) refund(q QueueName, bytes, messages int64) error {
	login := q.Login()
	if login == "" {
		return nil
	}
	err := m.Refund(login, bytes, messages)
	if undecodable(err) {
		m.report(q, err)
		return nil
	}
	return err
}

// rebuild makes a queue's row anew.
func (m *Moves) rebuild(name QueueName, why error) (*Queue, error) {
	if err := m.setAside(queueKey(name), name, why); err != nil {
		return nil, err
	}
	q := &Queue{Name: name}
	if err := m.count(q); err != nil {
		return nil, err
	}
	if !name.IsMailbox() {
		if err := m.unschedule(name); err != nil {
			return nil, err
		}
		q.Claim = &Claimed{Node: lostNode, Since: m.Now, Until: m.Now.Add(lostClaim), Cause: CauseTimer}
		if err := m.schedule(q, q.Claim.Until, CauseTimer); err != nil {
			return nil, err
		}
	}
	return q, m.putQueue(q)
}

// unschedule drops a queue's rows of the schedule, wherever they stand.
func (m *Moves) unschedule(name QueueName) error {
	return m.drop(schedPrefix, func(k []byte) bool {
		_, rest, err := cutU64(k[len(schedPrefix):])
		return err == nil && string(rest) == string(name)
	})
}

// drop deletes the rows of a prefix whose key is one of those.
func (m *Moves) drop(prefix string, those func(key []byte) bool) error {
	var keys [][]byte
	var err error
	lower, upper := prefixRange([]byte(prefix))
	for k := range m.Tx.Scan(lower, upper, &err) {
		if those(k) {
			keys = append(keys, bytes.Clone(k))
		}
	}
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := m.Tx.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// mend sets the damaged messages of a queue aside and counts the rest anew. The
// caller holds the queue's row and writes it back.
func (m *Moves) mend(q *Queue) error {
	before := *q
	if err := m.count(q); err != nil {
		return err
	}
	messages, size := max(0, before.Messages-q.Messages), max(0, before.Bytes-q.Bytes)
	if messages == 0 && size == 0 {
		return nil
	}
	return m.refund(q.Name, size, messages)
}

// count makes a queue's figures anew from its messages, and sets those aside that
// do not decode.
func (m *Moves) count(q *Queue) error {
	type bad struct {
		key []byte
		why error
	}
	var damaged []bad
	var err error
	q.Messages, q.Bytes, q.Held = 0, 0, 0
	prefix := messagesKey(q.Name)
	lower, upper := prefixRange(prefix)
	for k, v := range m.Tx.Scan(lower, upper, &err) {
		id, _, derr := cutU64(k[len(prefix):])
		if derr != nil {
			damaged = append(damaged, bad{bytes.Clone(k), brokenRow(fmt.Sprintf("the key of a message in queue %s", q.Name), derr)})
			continue
		}
		msg, derr := decodeMessage(q.Name, mail.ID(id), v)
		if derr != nil {
			damaged = append(damaged, bad{bytes.Clone(k), derr})
			continue
		}
		q.Messages++
		q.Bytes += msg.Size
		if msg.Hold != nil {
			q.Held++
		}
	}
	if err != nil {
		return err
	}
	for _, b := range damaged {
		if err := m.setAside(b.key, q.Name, b.why); err != nil {
			return err
		}
		if id, _, err := cutU64(b.key[len(prefix):]); err == nil {
			if err := m.forget(mail.ID(id), q.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget drops what the indexes say about a message that was set aside.
func (m *Moves) forget(id mail.ID, q QueueName) error {
	if err := m.Tx.Delete(whereKey(id, q)); err != nil || !q.IsOut() {
		return err
	}
	return m.drop(expiryPrefix, func(k []byte) bool {
		_, i, name, err := cutTimed(expiryPrefix, k)
		return err == nil && i == id && name == q
	})
}

// setAsideRemoved is setAside for a message that an operator removed.
func (m *Moves) setAsideRemoved(it Item, why error) error {
	if err := m.setAside(trashKey(it.ID, it.Queue), it.Queue, why); err != nil {
		return err
	}
	return m.drop(trashExpiry, func(k []byte) bool {
		_, id, name, err := cutTimed(trashExpiry, k)
		return err == nil && id == it.ID && name == it.Queue
	})
}

// Holds sums up what an account's queue and mailbox hold; damaged messages do not
// count.
func (r Reader) Holds(login mail.Login) (bytes, messages int64, err error) {
	for _, name := range []QueueName{AccountQueue(login), MailboxQueue(login)} {
		var rerr error
		for m := range r.Messages(name, 0, &rerr) {
			messages++
			bytes += m.Size
		}
		if rerr != nil && !undecodable(rerr) {
			return 0, 0, rerr
		}
	}
	return bytes, messages, nil
}

// maxOwedLook bounds the search for damaged owed bounces in one sweep.
const maxOwedLook = 10_000

// mendOwed sets owed bounces aside that nobody could tell or waive.
func (m *Moves) mendOwed() error {
	var damaged [][]byte
	var why []error
	var err error
	n := 0
	lower, upper := prefixRange([]byte(owedPrefix))
	for k, v := range m.Tx.Scan(lower, upper, &err) {
		if _, derr := decodeOwed(k, v); derr != nil {
			damaged, why = append(damaged, bytes.Clone(k)), append(why, derr)
		}
		if n++; n == maxOwedLook || len(damaged) == MaxItems {
			break
		}
	}
	for i := 0; err == nil && i < len(damaged); i++ {
		err = m.setAside(damaged[i], "", why[i])
	}
	return err
}
