package machine

import (
	"encoding/binary"
	"io"
	"maps"
	"slices"

	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// This file holds a replica's rows against the model: the promises of
// doc/promises.md.

// check checks everything that must be so after each entry.
func (t *town) check() {
	t.checkCopies()
	t.checkUsage()
	t.checkSchedule()
	t.checkLedger()
}

// checkCopies: every copy is where the model has it, and nowhere else.
func (t *town) checkCopies() {
	have := map[copyKey]place{}
	note := func(id mail.ID, q spool.QueueName, to mail.Address, p place) {
		k := copyKey{id, q, to}
		if have[k] != "" {
			fail(1, "the copy of %s for %s is %s and %s", id, to, have[k], p)
		}
		have[k] = p
	}
	rows := t.node.spool()
	var err error
	for q := range rows.Queues("", &err) {
		for m := range rows.Messages(q.Name, 0, &err) {
			for _, to := range m.To {
				note(m.ID, q.Name, to.Address, queued)
			}
		}
	}
	must(err)
	for r := range rows.Trash(spool.Item{}, &err) {
		for _, to := range r.Message.To {
			note(r.Message.ID, r.Message.Queue, to.Address, removed)
		}
	}
	must(err)
	owes, err := rows.Owed(spool.OwedKey{}, 1<<20)
	must(err)
	for _, o := range owes {
		for _, to := range o.To {
			note(o.Key.ID, o.Key.Queue, to.Address, owed)
		}
	}
	for k, f := range t.model.copies {
		switch f.place {
		case queued, removed, owed:
			if have[k] != f.place {
				fail(1, "MAIL IS LOST: the copy of %s for %s in %s must be %s, and is %q", k.id, k.to, k.queue, f.place, have[k])
			}
		}
	}
	for k, p := range have {
		if f := t.model.copies[k]; f.place != p {
			fail(1, "the copy of %s for %s in %s is %s, and must be %q", k.id, k.to, k.queue, p, f.place)
		}
	}
}

// checkLedger: what was acknowledged is known, and what counts as delivered was
// delivered.
func (t *town) checkLedger() {
	for _, k := range t.acknowledged {
		f, known := t.model.copies[k]
		switch {
		case !known:
			fail(1, "MAIL IS LOST: %s for %s was acknowledged, and nobody knows of it", k.id, k.to)
		case f.sent && t.got[k] == 0:
			fail(1, "MAIL IS LOST: %s for %s counts as delivered, and no server has it", k.id, k.to)
		}
	}
}

// checkUsage: an account is charged what it holds, and no more than its quota was
// when the last message came (3).
func (t *town) checkUsage() {
	for _, login := range logins {
		bytes, messages := t.model.usage(login)
		u, err := quota.Of(t.node.store, login)
		must(err)
		if u.Bytes != bytes || u.Messages != messages {
			fail(3, "account %s is charged %d bytes in %d messages, and holds %d in %d", login, u.Bytes, u.Messages, bytes, messages)
		}
	}
	var err error
	for q := range t.node.spool().Queues("", &err) {
		bytes, messages := t.model.holding(func(name spool.QueueName) bool { return name == q.Name })
		if q.Bytes != bytes || q.Messages != messages {
			fail(3, "queue %s says %d bytes in %d messages, and has %d in %d", q.Name, q.Bytes, q.Messages, bytes, messages)
		}
	}
	must(err)
}

// Bounds of a next event that lies ahead, beside Retry.
const (
	quietSlack = 11_000_000           // µs, spool.quietFor and a bit
	outSlack   = 5 * 3600 * 1_000_000 // µs, the longest wait for a server in the world
)

// checkSchedule: every queue with mail has a next event, soon enough, and one row
// that says so (6).
func (t *town) checkSchedule() {
	rows := map[spool.QueueName][]mail.Time{}
	var err error
	for k := range t.node.Scan([]byte("s/"), []byte("s0"), &err) {
		q := spool.QueueName(k[10:])
		rows[q] = append(rows[q], mail.Time(binary.BigEndian.Uint64(k[2:])))
	}
	must(err)
	now := t.model.now
	for q := range t.node.spool().Queues("", &err) {
		at := rows[q.Name]
		delete(rows, q.Name)
		if (q.Next != 0) != (len(at) == 1) || q.Next != 0 && at[0] != q.Next {
			fail(6, "queue %s is to be tried at %d, and its rows in the schedule say %v", q.Name, q.Next, at)
		}
		until, heldUp := t.model.holds[q.Name]
		limit := now + mail.Time(t.model.retry) + quietSlack
		switch {
		case q.Messages == 0 || q.Name.IsMailbox():
			continue
		case t.model.live(q.Name):
			limit = t.model.claims[q.Name].Until
		case heldUp && until == 0:
			continue
		case heldUp:
			limit = max(limit, until)
		}
		if q.Name.IsOut() {
			limit = max(limit, now+outSlack)
		}
		if q.Next == 0 || q.Next > limit {
			fail(6, "queue %s holds %d messages and is next tried at %d; it is %d, and at most %d is right", q.Name, q.Messages, q.Next, now, limit)
		}
	}
	must(err)
	if len(rows) > 0 {
		fail(6, "the schedule has rows of queues that are not there: %v", slices.Sorted(maps.Keys(rows)))
	}
}

// checkBodies: bodies are whole, and none is left that nobody needs.
func (t *town) checkBodies() {
	rows := t.node.spool()
	needed := map[spool.BodyID]bool{}
	var err error
	for it, msg := range t.model.queues {
		m, ok, err := rows.Message(it.Queue, it.ID)
		must(err)
		if !ok {
			fail(1, "MAIL IS LOST: message %v", it)
		}
		needed[m.Body] = true
		r, err := rows.Body(m.Body)
		must(err)
		b, err := io.ReadAll(r)
		must(err)
		if string(b) != msg.body || m.Size != int64(len(b)) {
			fail(1, "the body of %v has %d bytes and was %d, or another text", it, len(b), len(msg.body))
		}
	}
	for r := range rows.Trash(spool.Item{}, &err) {
		needed[r.Message.Body] = true
	}
	must(err)
	owes, err := rows.Owed(spool.OwedKey{}, 1<<20)
	must(err)
	for _, o := range owes {
		needed[o.Body] = true
	}
	for id := range t.model.staged {
		needed[id] = true
	}
	for _, prefix := range []string{"b/", "B/"} {
		for k := range t.node.Scan([]byte(prefix), []byte(prefix[:1]+"0"), &err) {
			if id := spool.BodyID(binary.BigEndian.Uint64(k[2:])); !needed[id] {
				fail(0, "a row %q is left of body %s, which nobody needs", prefix, id)
			}
		}
		must(err)
	}
}

// same compares the replicas, which have applied the same (7).
func (t *town) same() {
	if a, b := t.node.hash(), t.twin.hash(); a != b || t.node.m.Applied() != t.twin.m.Applied() {
		fail(7, "after entry %d the rows of the replicas differ: %s and %s", t.node.m.Applied(), a, b)
	}
}
