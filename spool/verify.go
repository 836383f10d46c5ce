package spool

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// Fault is something that is wrong with the rows.
type Fault struct {
	// Lost: mail cannot be delivered because of it. Otherwise it is bookkeeping:
	// a sweep or an operator puts it right, or it takes room and no more.
	Lost bool
	Text string
}

// Verified is what a Verify has looked at.
type Verified struct {
	Queues, Messages, Bodies int64
	Bytes                    int64 // of bodies
}

// Verify looks at every row of the spool and tells each fault. progress may be nil;
// it is called now and then with the number of rows seen. Memory stays bounded
// however much there is: see verifyBodies.
//
// A damaged file hides the rows behind it, so faults may then be too few or too
// many; the error says which files those are.
func (r Reader) Verify(fault func(Fault), progress func(rows int64)) (Verified, error) {
	v := &verifier{Reader: r, fault: fault, progress: progress}
	err := errors.Join(v.messages(), v.queues(), v.others(), v.verifyBodies(maxBodiesAtOnce))
	return v.seen, err
}

type verifier struct {
	Reader
	fault    func(Fault)
	progress func(int64)
	rows     int64
	seen     Verified
}

// progressEvery is how many rows are seen between two calls of progress.
const progressEvery = 1000

func (v *verifier) lost(format string, args ...any) {
	v.fault(Fault{true, fmt.Sprintf(format, args...)})
}

func (v *verifier) odd(format string, args ...any) {
	v.fault(Fault{false, fmt.Sprintf(format, args...)})
}

// each goes through the rows of a prefix. key is what follows it.
func (v *verifier) each(prefix string, row func(key, value []byte) error) error {
	lower, upper := prefixRange([]byte(prefix))
	var err error
	for k, value := range v.R.Scan(lower, upper, &err) {
		if v.rows++; v.progress != nil && v.rows%progressEvery == 0 {
			v.progress(v.rows)
		}
		if rerr := row(k[len(prefix):], value); rerr != nil {
			return rerr
		}
	}
	return err
}

// has tells a fault where a row that must be there is not.
func (v *verifier) has(key []byte, format string, args ...any) error {
	row, err := v.R.Get(key)
	if err == nil && row == nil {
		v.odd(format, args...)
	}
	return err
}

// messages goes through all messages queue by queue, and compares what each queue
// holds with what its row says.
func (v *verifier) messages() error {
	var name QueueName
	var count, size, held int64
	sound := true
	end := func() error {
		if name == "" {
			return nil
		}
		q, ok, err := v.Queue(name)
		switch {
		case mail.KindOf(err) == mail.Broken && !kv.IsDamage(err): // told by queues
		case err != nil:
			return err
		case !ok:
			v.lost("queue %s has %d messages and no row: nobody would try it", name, count)
		case sound && (q.Messages != count || q.Bytes != size):
			v.odd("queue %s counts %d messages of %d bytes; it holds %d of %d", name, q.Messages, q.Bytes, count, size)
		case sound && q.Held != held:
			v.miscounted(q, held)
		}
		return nil
	}
	err := v.each(messagePrefix, func(key, value []byte) error {
		queue, rest, _ := bytes.Cut(key, []byte{0})
		if QueueName(queue) != name {
			if err := end(); err != nil {
				return err
			}
			name, count, size, held, sound = QueueName(queue), 0, 0, 0, true
		}
		n, _, err := cutU64(rest)
		if err != nil {
			sound = false
			v.lost("the key of a message in queue %s is damaged: %q", name, key)
			return nil
		}
		m, err := decodeMessage(name, mail.ID(n), value)
		if err != nil {
			sound = false
			v.lost("%s", err)
			return nil
		}
		count++
		size += m.Size
		if m.Hold != nil {
			held++
		}
		v.seen.Messages++
		if len(m.To) == 0 {
			v.odd("message %s in queue %s has no recipient", m.ID, name)
		}
		err = v.has(whereKey(m.ID, name), "message %s in queue %s is not in the index by ID", m.ID, name)
		if m.Expires != 0 && err == nil {
			err = v.has(timedKey(expiryPrefix, m.Expires, m.ID, name), "message %s in queue %s would never expire", m.ID, name)
		}
		return err
	})
	return errors.Join(err, end())
}

// miscounted tells of a queue whose row has another number of held messages than
// there are. While it is too great a login may start no push; the timer does.
func (v *verifier) miscounted(q Queue, held int64) {
	v.odd("queue %s counts %d held messages; it has %d: a login may start no push where it should, or the other way round", q.Name, q.Held, held)
}

// queues goes through the queues' rows.
func (v *verifier) queues() error {
	return v.each(queuePrefix, func(key, value []byte) error {
		q, err := decodeQueue(QueueName(key), value)
		if err != nil {
			v.lost("%s", err)
			return nil
		}
		v.seen.Queues++
		if q.Messages == 0 && q.Held != 0 {
			v.miscounted(q, 0)
		}
		if q.Messages > 0 {
			lower, upper := prefixRange(messagesKey(q.Name))
			last, _, err := v.R.Last(lower, upper)
			if err != nil {
				return err
			}
			if last == nil {
				v.lost("queue %s counts %d messages of %d bytes; it holds none", q.Name, q.Messages, q.Bytes)
			}
		}
		switch {
		case q.Next != 0:
			return v.has(schedKey(q.Next, q.Name), "queue %s is to be tried and not on the schedule; the next sweep puts it there", q.Name)
		case q.Messages > 0 && !q.Name.IsMailbox() && !(q.Hold != nil && q.Hold.Until == 0):
			v.odd("queue %s holds mail and has no next event; the next sweep gives it one", q.Name)
		}
		return nil
	})
}

// others goes through the rows that point to messages and queues.
func (v *verifier) others() error {
	points := func(prefix string, timed bool, to func(mail.ID, QueueName) []byte) error {
		return v.each(prefix, func(key, _ []byte) error {
			if timed && len(key) >= 8 {
				key = key[8:]
			}
			n, rest, err := cutU64(key)
			if err != nil {
				v.odd("a key below %q is damaged: %q", prefix, key)
				return nil
			}
			return v.has(to(mail.ID(n), QueueName(rest)), "a row below %q is about message %s in queue %s, which is not there", prefix, mail.ID(n), rest)
		})
	}
	message := func(id mail.ID, q QueueName) []byte { return messageKey(q, id) }
	return errors.Join(
		points(wherePrefix, false, message),
		points(expiryPrefix, true, message),
		points(trashExpiry, true, trashKey),
		v.each(schedPrefix, func(key, value []byte) error {
			d, err := decodeDue(append([]byte(schedPrefix), key...), value)
			if err != nil {
				v.odd("%s", err)
				return nil
			}
			q, ok, err := v.Queue(d.Queue)
			if err == nil && (!ok || q.Next != d.At) {
				v.odd("the schedule has queue %s at another time than its row", d.Queue)
			}
			if kv.IsDamage(err) {
				return err
			}
			return nil
		}),
		v.each(suspendPrefix, func(key, value []byte) error {
			var h Hold
			if err := kv.Decode(value, &h); err != nil {
				v.odd("%s", brokenRow(fmt.Sprintf("suspension of %s", key), err))
			}
			return nil
		}),
	)
}

// maxBodiesAtOnce bounds the bodies whose users are counted at once, and with them
// the memory of a Verify: some 60 bytes each.
const maxBodiesAtOnce = 1 << 19

// use is who needs a body.
type use struct {
	refs int32
	size int64
	by   string // one of them, for people; empty where it is not a message
}

// verifyBodies compares each body with the messages, owed bounces and removed
// messages that need it. It takes the bodies in order of ID, so many at a time that
// what is remembered of them stays bounded, and goes through the messages again for
// each lot.
func (v *verifier) verifyBodies(atOnce int) error {
	for from, more := BodyID(0), true; more; {
		uses := map[BodyID]use{}
		below := ^BodyID(0)
		err := v.users(func(id BodyID, size int64, by string) {
			if id < from || id >= below {
				return
			}
			u := uses[id]
			uses[id] = use{u.refs + 1, size, by}
			if len(uses) > 2*atOnce {
				below = halve(uses)
			}
		}, from == 0)
		if err != nil {
			return err
		}
		if err := v.compareBodies(from, below, uses); err != nil {
			return err
		}
		from, more = below, below != ^BodyID(0)
	}
	return nil
}

// halve drops the bodies of the greater half and says where that begins.
func halve(uses map[BodyID]use) BodyID {
	ids := make([]BodyID, 0, len(uses))
	for id := range uses { //deterministic: sorted below
		ids = append(ids, id)
	}
	slices.Sort(ids)
	ids = ids[len(ids)/2:]
	for _, id := range ids {
		delete(uses, id)
	}
	return ids[0]
}

// users names every need of a body. With tell it tells of rows that cannot be
// decoded, other than messages.
func (v *verifier) users(need func(id BodyID, size int64, by string), tell bool) error {
	return errors.Join(
		v.each(messagePrefix, func(key, value []byte) error {
			queue, rest, _ := bytes.Cut(key, []byte{0})
			n, _, err := cutU64(rest)
			if err != nil {
				return nil
			}
			if m, err := decodeMessage(QueueName(queue), mail.ID(n), value); err == nil {
				need(m.Body, m.Size, fmt.Sprintf("message %s in queue %s", m.ID, queue))
			}
			return nil
		}),
		v.each(owedPrefix, func(key, value []byte) error {
			o, err := decodeOwed(append([]byte(owedPrefix), key...), value)
			if err == nil {
				need(o.Body, o.Size, fmt.Sprintf("the bounce owed for %s", o.Key.ID))
			} else if tell {
				v.lost("%s", err)
			}
			return nil
		}),
		v.each(trashPrefix, func(key, value []byte) error {
			n, rest, err := cutU64(key)
			var rem Removed
			if err == nil {
				rem, err = decodeRemoved(value, mail.ID(n), QueueName(rest))
			}
			if err == nil {
				need(rem.Message.Body, rem.Message.Size, fmt.Sprintf("removed message %s", mail.ID(n)))
			} else if tell {
				v.odd("a removed message cannot be read: %s", err)
			}
			return nil
		}),
	)
}

// compareBodies goes through the chunks of all bodies from one ID to below
// another, and compares them with who needs them. What is left of uses at the end
// has no chunks at all.
func (v *verifier) compareBodies(from, below BodyID, uses map[BodyID]use) error {
	var id BodyID
	var chunks int
	var size int64
	end := func() error {
		if chunks == 0 {
			return nil
		}
		u, used := uses[id]
		delete(uses, id)
		v.seen.Bodies++
		v.seen.Bytes += size
		row, err := readBody(v.R, id)
		switch {
		case kv.IsDamage(err):
			return err
		case err != nil && used:
			v.lost("%s: %s", u.by, err)
		case err != nil:
			v.odd("%s", err)
		case used && (chunks != row.Chunks || size != u.size):
			v.lost("%s: its body has %d bytes in %d pieces instead of %d bytes in %d", u.by, size, chunks, u.size, row.Chunks)
		case used && int(u.refs) > row.Refs:
			v.lost("%s: its body is needed %d times and counted %d times: it would go too early", u.by, u.refs, row.Refs)
		case used && int(u.refs) < row.Refs:
			v.odd("the body of %s is counted %d times and needed %d times: it would stay", u.by, row.Refs, u.refs)
		case !used && row.Staged == 0:
			v.odd("body %s of %d bytes belongs to no message", id, size)
		case !used:
			return v.has(stagedKey(row.Staged, id), "body %s of %d bytes came without an envelope and would stay", id, size)
		}
		return nil
	}
	lower, upper := u64([]byte(chunkPrefix), uint64(from)), kv.PrefixEnd([]byte(chunkPrefix))
	if below != ^BodyID(0) {
		upper = u64([]byte(chunkPrefix), uint64(below))
	}
	var err error
	for k, value := range v.R.Scan(lower, upper, &err) {
		if v.rows++; v.progress != nil && v.rows%progressEvery == 0 {
			v.progress(v.rows)
		}
		n, _, kerr := cutU64(k[len(chunkPrefix):])
		if kerr != nil {
			v.odd("the key of a piece of a body is damaged: %q", k)
			continue
		}
		if BodyID(n) != id {
			if err := end(); err != nil {
				return err
			}
			id, chunks, size = BodyID(n), 0, 0
		}
		chunks++
		size += int64(len(value))
	}
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	missing := make([]BodyID, 0, len(uses))
	for id := range uses { //deterministic: sorted below
		missing = append(missing, id)
	}
	slices.Sort(missing)
	for _, id := range missing {
		v.lost("%s: its body is missing", uses[id].by)
	}
	return nil
}
