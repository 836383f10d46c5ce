package spool

import (
	"fmt"
	"iter"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Queue implements reading.
func (r Reader) Queue(name QueueName) (Queue, bool, error) {
	v, err := r.R.Get(queueKey(name))
	if err != nil || v == nil {
		return Queue{Name: name}, false, err
	}
	q, err := decodeQueue(name, v)
	return q, err == nil, err
}

func decodeQueue(name QueueName, v []byte) (Queue, error) {
	var q Queue
	if err := kv.Decode(v, &q); err != nil {
		return Queue{Name: name}, brokenRow(fmt.Sprintf("queue %s", name), err)
	}
	q.Name = name
	return q, nil
}

// Queues implements reading.
func (r Reader) Queues(from QueueName, err *error) iter.Seq[Queue] {
	return func(yield func(Queue) bool) {
		lower, upper := prefixRange([]byte(queuePrefix))
		if from != "" {
			lower = after(queueKey(from))
		}
		var broken error
		for k, v := range r.R.Scan(lower, upper, err) {
			q, derr := decodeQueue(QueueName(k[len(queuePrefix):]), v)
			if derr != nil {
				broken = derr
				continue
			}
			if !yield(q) {
				break
			}
		}
		if *err == nil {
			*err = broken
		}
	}
}

// Message implements reading.
func (r Reader) Message(queue QueueName, id mail.ID) (Message, bool, error) {
	v, err := r.R.Get(messageKey(queue, id))
	if err != nil || v == nil {
		return Message{}, false, err
	}
	m, err := decodeMessage(queue, id, v)
	return m, err == nil, err
}

func decodeMessage(queue QueueName, id mail.ID, v []byte) (Message, error) {
	var m Message
	if err := kv.Decode(v, &m); err != nil {
		return m, brokenRow(fmt.Sprintf("message %s in queue %s", id, queue), err)
	}
	m.ID, m.Queue = id, queue
	return m, nil
}

// Messages implements reading.
func (r Reader) Messages(queue QueueName, from mail.ID, err *error) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		prefix := messagesKey(queue)
		lower, upper := prefixRange(prefix)
		if from != 0 {
			lower = after(messageKey(queue, from))
		}
		var broken error
		for k, v := range r.R.Scan(lower, upper, err) {
			id, _, derr := cutU64(k[len(prefix):])
			if derr != nil {
				broken = brokenRow(fmt.Sprintf("the key of a message in queue %s", queue), derr)
				continue
			}
			m, derr := decodeMessage(queue, mail.ID(id), v)
			if derr != nil {
				broken = derr
				continue
			}
			if !yield(m) {
				break
			}
		}
		if *err == nil {
			*err = broken
		}
	}
}

// Where implements reading.
func (r Reader) Where(id mail.ID) ([]QueueName, error) {
	prefix := u64([]byte(wherePrefix), uint64(id))
	lower, upper := prefix, u64([]byte(wherePrefix), uint64(id)+1)
	var out []QueueName
	var err error
	for k := range r.R.Scan(lower, upper, &err) {
		out = append(out, QueueName(k[len(prefix):]))
	}
	return out, err
}

// Due implements reading.
func (r Reader) Due(now mail.Time, limit int) ([]Due, error) {
	return r.due([]byte(schedPrefix), now, limit)
}

// DueAfter implements reading.
func (r Reader) DueAfter(from Due, now mail.Time, limit int) ([]Due, error) {
	return r.due(after(schedKey(from.At, from.Queue)), now, limit)
}

func (r Reader) due(lower []byte, now mail.Time, limit int) ([]Due, error) {
	upper := u64([]byte(schedPrefix), uint64(now)+1)
	if string(lower) >= string(upper) {
		return nil, nil
	}
	var out []Due
	var err error
	for k, v := range r.R.Scan(lower, upper, &err) {
		d, derr := decodeDue(k, v)
		if derr != nil {
			continue // the sweep writes the row anew
		}
		out = append(out, d)
		if len(out) == limit {
			break
		}
	}
	return out, err
}

func decodeDue(k, v []byte) (Due, error) {
	at, rest, err := cutU64(k[len(schedPrefix):])
	if err == nil && len(v) != 1 {
		err = fmt.Errorf("a cause of %d bytes", len(v))
	}
	if err != nil {
		return Due{}, brokenRow("a row of the schedule", err)
	}
	return Due{Queue: QueueName(rest), At: mail.Time(at), Cause: Cause(v[0])}, nil
}

// NextDue implements reading.
func (r Reader) NextDue() (mail.Time, error) {
	lower, upper := prefixRange([]byte(schedPrefix))
	var err error
	for k, v := range r.R.Scan(lower, upper, &err) {
		if d, derr := decodeDue(k, v); derr == nil {
			return d.At, nil
		}
	}
	return 0, err
}

// Owed implements reading.
func (r Reader) Owed(from OwedKey, limit int) ([]Owed, error) {
	lower, upper := prefixRange([]byte(owedPrefix))
	if from != (OwedKey{}) {
		lower = after(owedKey(from))
	}
	var out []Owed
	var err, broken error
	for k, v := range r.R.Scan(lower, upper, &err) {
		o, derr := decodeOwed(k, v)
		if derr != nil {
			broken = derr
			continue
		}
		out = append(out, o)
		if len(out) == limit {
			break
		}
	}
	if err == nil && len(out) == 0 {
		err = broken
	}
	return out, err
}

func decodeOwed(k, v []byte) (Owed, error) {
	var o Owed
	id, rest, err := cutU64(k[len(owedPrefix):])
	if err == nil {
		o.Key.ID = mail.ID(id)
		o.Key.Seq, rest, err = cutU64(rest)
	}
	if err == nil {
		o.Key.Queue = QueueName(rest)
		err = kv.Decode(v, &o)
	}
	if err != nil {
		return o, brokenRow("an owed bounce", err)
	}
	return o, nil
}

// Trash implements reading.
func (r Reader) Trash(from Item, err *error) iter.Seq[Removed] {
	return func(yield func(Removed) bool) {
		lower, upper := prefixRange([]byte(trashPrefix))
		if from != (Item{}) {
			lower = after(trashKey(from.ID, from.Queue))
		}
		for k, v := range r.R.Scan(lower, upper, err) {
			id, rest, kerr := cutU64(k[len(trashPrefix):])
			if kerr != nil {
				continue
			}
			if rem, derr := decodeRemoved(v, mail.ID(id), QueueName(rest)); derr == nil && !yield(rem) {
				return
			}
		}
	}
}

// Suspensions implements reading.
func (r Reader) Suspensions() ([]Suspension, error) {
	lower, upper := prefixRange([]byte(suspendPrefix))
	var out []Suspension
	var err error
	for k, v := range r.R.Scan(lower, upper, &err) {
		out = append(out, decodeSuspension(Scope(k[len(suspendPrefix):]), v))
	}
	return out, err
}

// Suspended implements reading.
func (r Reader) Suspended(queue QueueName, now mail.Time) (*Suspension, error) {
	for _, scope := range []Scope{ScopeAll, Scope(queue)} {
		v, err := r.R.Get(suspendKey(scope))
		if err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		s := decodeSuspension(scope, v)
		if s.Hold.Until == 0 || s.Hold.Until > now {
			return &s, nil
		}
	}
	return nil, nil
}

// decodeSuspension takes a rule that does not decode for one without an end.
func decodeSuspension(scope Scope, v []byte) Suspension {
	s := Suspension{Scope: scope}
	if err := kv.Decode(v, &s.Hold); err != nil {
		s.Hold = Hold{Reason: "the row of this suspension is damaged; resume delivery if it is not meant any more"}
	}
	return s
}

// LastSweep implements reading.
func (r Reader) LastSweep() (mail.Time, error) {
	v, err := r.R.Get([]byte(sweepKey))
	if err != nil || v == nil {
		return 0, err
	}
	at, _, err := cutU64(v)
	return mail.Time(at), err
}

// WithoutNext implements reading.
func (r Reader) WithoutNext(now mail.Time) (int, error) {
	n := 0
	var err error
	for q := range r.Queues("", &err) {
		if q.Messages == 0 || q.Name.IsMailbox() || q.held(now) && q.Hold.Until == 0 {
			continue
		}
		if q.Next == 0 {
			n++
			continue
		}
		v, gerr := r.R.Get(schedKey(q.Next, q.Name))
		if gerr != nil {
			return 0, gerr
		}
		if len(v) != 1 { // see decodeDue
			n++
		}
	}
	return n, err
}
