package spool

import (
	"fmt"

	"bsmtpd/mail"
)

// Expire does what the passing of time asks for, at most c.Limit rows of it.
func (m *Moves) Expire(c Expire) (Expired, error) {
	if c.Limit < 1 || c.Limit > MaxItems {
		return Expired{}, invalid("an expiry of %d rows; 1 to %d", c.Limit, MaxItems)
	}
	var out Expired
	left := c.Limit
	for _, step := range []func(int, *Expired) (int, error){m.expireMessages, m.expireStaged, m.expireTrash, m.expireRules} {
		n, err := step(left, &out)
		if err != nil {
			return Expired{}, err
		}
		if left -= n; left <= 0 {
			out.More = true
			break
		}
	}
	return out, nil
}

// Expirable implements reading.
func (r Reader) Expirable(now mail.Time) (bool, error) {
	for _, prefix := range []string{expiryPrefix, stagedPrefix, trashExpiry} {
		var err error
		for range r.R.Scan([]byte(prefix), u64([]byte(prefix), uint64(now)+1), &err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	rules, err := r.Suspensions()
	for _, s := range rules {
		if s.Hold.Until != 0 && s.Hold.Until <= now {
			return true, nil
		}
	}
	return false, err
}

// expired collects the keys of a prefix whose time has come, at most limit.
func (m *Moves) expired(prefix string, limit int) ([][]byte, error) {
	var keys [][]byte
	var err error
	upper := u64([]byte(prefix), uint64(m.Now)+1)
	for k := range m.Tx.Scan([]byte(prefix), upper, &err) {
		keys = append(keys, append([]byte(nil), k...))
		if len(keys) == limit {
			break
		}
	}
	return keys, err
}

func (m *Moves) expireMessages(limit int, out *Expired) (int, error) {
	keys, err := m.expired(expiryPrefix, limit)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		if err := m.Tx.Delete(k); err != nil {
			return 0, err
		}
		_, id, name, err := cutTimed(expiryPrefix, k)
		if err != nil {
			continue // no message has such a key
		}
		msg, ok, err := Reader{m.Tx}.Message(name, id)
		switch {
		case undecodable(err):
			err = m.mendQueue(name)
			out.Damaged++
		case err == nil && ok:
			err = m.expireMessage(&msg, out)
		}
		if err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

func (m *Moves) expireMessage(msg *Message, out *Expired) error {
	q, err := m.queue(msg.Queue)
	if err != nil {
		return err
	}
	if q.claimed(m.Now) { // it may be on the wire: ask again when the session must have ended
		return m.expireLater(msg, q.Claim.Until)
	}
	age := m.Now.Sub(msg.Arrived)
	err = m.giveUp(q, msg, FailExpired, func(r *Recipient) mail.Reply {
		if r.Last.Code != 0 {
			return r.Last
		}
		return mail.Reply{Code: 451, Status: mail.Status{4, 4, 7}, Text: fmt.Sprintf("could not be delivered in %.1f days: %s", age.Hours()/24, q.LastWords)}
	})
	if err != nil {
		return err
	}
	out.Messages++
	if err := m.arrange(q); err != nil {
		return err
	}
	return m.putQueue(q)
}

// mendQueue is mend where nobody holds the queue's row.
func (m *Moves) mendQueue(name QueueName) error {
	q, err := m.queue(name)
	if err != nil {
		return err
	}
	if err := m.mend(q); err != nil {
		return err
	}
	if err := m.arrange(q); err != nil {
		return err
	}
	return m.putQueue(q)
}

func (m *Moves) expireLater(msg *Message, at mail.Time) error {
	msg.Expires = at
	if err := m.Tx.Set(timedKey(expiryPrefix, at, msg.ID, msg.Queue), nil); err != nil {
		return err
	}
	return m.putMessage(msg)
}

func (m *Moves) expireStaged(limit int, out *Expired) (int, error) {
	keys, err := m.expired(stagedPrefix, limit)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		_, id, _, err := cutTimed(stagedPrefix, k)
		if derr := m.Tx.Delete(k); derr != nil {
			return 0, derr
		}
		if err != nil {
			continue // no body has such a key
		}
		b, err := readBody(m.Tx, id)
		switch {
		case undecodable(err): // nobody uses a body that is still on this list
			err = m.dropDamaged(id, err)
			out.Damaged++
		case err == nil && b.Staged != 0:
			err = m.dropBody(id, b)
			out.Bodies++
		}
		if err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

func (m *Moves) expireTrash(limit int, out *Expired) (int, error) {
	keys, err := m.expired(trashExpiry, limit)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		at, id, name, err := cutTimed(trashExpiry, k)
		if err != nil { // no message has such a key
			if err := m.Tx.Delete(k); err != nil {
				return 0, err
			}
			continue
		}
		v, err := m.Tx.Get(trashKey(id, name))
		if err != nil {
			return 0, err
		}
		r, derr := decodeRemoved(v, id, name)
		if derr != nil && v != nil { // its body is left over
			if err := m.setAside(trashKey(id, name), name, derr); err != nil {
				return 0, err
			}
			out.Damaged++
		}
		if err := m.dropTrash(id, name, at); err != nil {
			return 0, err
		}
		if derr != nil {
			continue
		}
		if err := m.unref(r.Message.Body); err != nil {
			return 0, err
		}
		out.Trash++
	}
	return len(keys), nil
}

func (m *Moves) expireRules(limit int, out *Expired) (int, error) {
	rules, err := Reader{m.Tx}.Suspensions()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range rules {
		if n == limit {
			break
		}
		if s.Hold.Until == 0 || s.Hold.Until > m.Now {
			continue
		}
		if err := m.Tx.Delete(suspendKey(s.Scope)); err != nil {
			return n, err
		}
		out.Holds++
		n++
	}
	return n, nil
}
