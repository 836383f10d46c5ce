package spool

import "bsmtpd/mail"

// Enqueue keeps a message: a row in each target's queue, one body for all. A
// target that has no room is refused; where another one was accepted, its
// recipients are owed a bounce, and where none was, nothing is kept at all.
//
// body is the whole body, unless the command names a staged one.
func (m *Moves) Enqueue(c Enqueue, body []byte) (Enqueued, error) {
	if err := m.checkEnqueue(&c, body); err != nil {
		return Enqueued{}, err
	}
	out := Enqueued{Targets: make([]TargetResult, len(c.Targets))}
	accepted, refused := 0, 0
	for i, t := range c.Targets {
		if login := t.Queue.Login(); login != "" {
			res, err := m.Charge(login, c.Size)
			if err != nil {
				return Enqueued{}, err
			}
			out.Targets[i] = res
		}
		if out.Targets[i].Refusal == Accepted {
			accepted++
		} else if m.anyWants(&c, t) {
			refused++
		}
	}
	if accepted == 0 {
		return out, m.dropUnused(&c) // a bounce that it would settle stays owed
	}
	if c.Settles != nil {
		if err := m.clearOwed(*c.Settles); err != nil {
			return Enqueued{}, err
		}
	}
	out.ID = m.NewID()
	id, err := m.keepBody(&c, body, out.ID, accepted+refused)
	if err != nil {
		return Enqueued{}, err
	}
	for i, t := range c.Targets {
		msg := c.message(t, out.ID, id, m.Now)
		if out.Targets[i].Refusal != Accepted {
			if err := m.oweRefused(&msg, out.Targets[i].Refusal); err != nil {
				return Enqueued{}, err
			}
			continue
		}
		if t.Queue.IsOut() {
			msg.Expires = m.Now.Add(m.Set.OutLife)
		}
		if err := m.insert(&msg); err != nil {
			return Enqueued{}, err
		}
	}
	return out, nil
}

func (m *Moves) checkEnqueue(c *Enqueue, body []byte) error {
	n := 0
	seen := make(map[QueueName]bool, len(c.Targets))
	for _, t := range c.Targets {
		switch {
		case !t.Queue.Valid():
			return invalid("%q is not a queue", t.Queue)
		case len(t.To) == 0:
			return invalid("nobody is to get the message in queue %s", t.Queue)
		case seen[t.Queue]:
			return invalid("queue %s is named twice", t.Queue)
		}
		seen[t.Queue] = true
		n += len(t.To)
	}
	switch {
	case n == 0 || n > MaxRecipients:
		return invalid("%d recipients; a message has 1 to %d", n, MaxRecipients)
	case c.Staged == 0 && (int64(len(body)) != c.Size || len(body) > ChunkBytes):
		return invalid("a body of %d bytes, said to be %d; larger than %d it must be staged", len(body), c.Size, ChunkBytes)
	case c.Staged == 0:
		return nil
	}
	b, err := readBody(m.Tx, c.Staged)
	switch {
	case err != nil:
		return err
	case b.Staged == 0:
		return invalid("body %s is not staged, or not any more", c.Staged)
	case b.Size != c.Size:
		return invalid("body %s has %d bytes, said to be %d", c.Staged, b.Size, c.Size)
	}
	return nil
}

// anyWants reports whether the sender is to be told that a target was refused.
func (m *Moves) anyWants(c *Enqueue, t Target) bool {
	if c.Envelope.From.IsNull() {
		return false
	}
	for _, r := range t.To {
		if r.Notify.OnFailure() {
			return true
		}
	}
	return false
}

// dropUnused drops the staged body of a message that nobody has room for.
func (m *Moves) dropUnused(c *Enqueue) error {
	if c.Staged == 0 {
		return nil
	}
	b, err := readBody(m.Tx, c.Staged)
	if err != nil {
		return err
	}
	return m.dropBody(c.Staged, b)
}

func (m *Moves) keepBody(c *Enqueue, body []byte, id mail.ID, refs int) (BodyID, error) {
	if c.Staged == 0 {
		if err := m.Tx.Set(chunkKey(id, 0), body); err != nil {
			return 0, err
		}
		if refs == 1 {
			return id, nil // no row, see bodyRow; and none to delete
		}
		return id, m.putBody(id, bodyRow{Refs: refs, Chunks: 1})
	}
	b, err := readBody(m.Tx, c.Staged)
	if err != nil {
		return 0, err
	}
	if err := m.Tx.Delete(stagedKey(b.Staged, c.Staged)); err != nil {
		return 0, err
	}
	b.Refs, b.Staged = refs, 0
	return c.Staged, m.putBody(c.Staged, b)
}

func (c *Enqueue) message(t Target, id mail.ID, body BodyID, now mail.Time) Message {
	e := &c.Envelope
	msg := Message{ID: id, Queue: t.Queue, From: e.From, Return: e.Return, EnvID: e.EnvID, UTF8: e.UTF8,
		EightBit: e.EightBit, Size: c.Size, Arrived: now, Body: body, To: make([]Recipient, len(t.To))}
	for i, r := range t.To {
		msg.To[i] = Recipient{Address: r.Address, Original: r.Original, Notify: r.Notify}
	}
	return msg
}
