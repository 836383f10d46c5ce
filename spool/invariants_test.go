package spool

import (
	"bytes"
	"io"
	"slices"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// rows is everything that the rows say, read without the code under test.
type rows struct {
	queues   map[QueueName]Queue
	sched    map[QueueName][]mail.Time
	messages map[Item]Message
	where    map[Item]bool
	expiry   map[Item]mail.Time
	owed     map[OwedKey]Owed
	trash    map[Item]Removed
	trashEnd map[Item]mail.Time
	bodies   map[BodyID]bodyRow
	staged   map[BodyID]mail.Time
	chunks   map[BodyID][]int
}

func (b *bench) read() *rows {
	b.Helper()
	r := &rows{map[QueueName]Queue{}, map[QueueName][]mail.Time{}, map[Item]Message{}, map[Item]bool{}, map[Item]mail.Time{},
		map[OwedKey]Owed{}, map[Item]Removed{}, map[Item]mail.Time{}, map[BodyID]bodyRow{}, map[BodyID]mail.Time{}, map[BodyID][]int{}}
	var err error
	for k, v := range b.db.Scan([]byte{0}, []byte{0xff}, &err) {
		kind, rest, ok := bytes.Cut(k, []byte("/"))
		if !ok {
			b.Fatalf("a row %q without a prefix", k)
		}
		b.readRow(r, string(kind), slices.Clone(rest), v)
	}
	if err != nil {
		b.Fatalf("scan: %v", err)
	}
	return r
}

func (b *bench) readRow(r *rows, kind string, k, v []byte) {
	b.Helper()
	num := func() (n uint64) {
		if len(k) < 8 {
			b.Fatalf("a key of kind %s is too short: %q", kind, k)
		}
		n, k, _ = cutU64(k)
		return n
	}
	decode := func(to any) {
		if err := kv.Decode(v, to); err != nil {
			b.Fatalf("row %s/%q: %v", kind, k, err)
		}
	}
	switch kind {
	case "q":
		q := Queue{Name: QueueName(k)}
		decode(&q)
		r.queues[q.Name] = q
	case "s":
		at := mail.Time(num())
		r.sched[QueueName(k)] = append(r.sched[QueueName(k)], at)
		if q := b.queue(QueueName(k)); q.Next == at && (len(v) != 1 || Cause(v[0]) != q.Cause) {
			b.Errorf("schedule row of %s has cause %v, the queue %v", k, v, q.Cause)
		}
	case "m":
		name, id, _ := bytes.Cut(k, []byte{0})
		k = id
		m := Message{Queue: QueueName(name), ID: mail.ID(num())}
		decode(&m)
		r.messages[Item{m.Queue, m.ID}] = m
	case "i":
		id := mail.ID(num())
		r.where[Item{QueueName(k), id}] = true
	case "e", "te":
		at, id := mail.Time(num()), mail.ID(num())
		to, it := r.expiry, Item{QueueName(k), id}
		if kind == "te" {
			to = r.trashEnd
		}
		if _, twice := to[it]; twice {
			b.Errorf("%s/ has two rows for %v", kind, it)
		}
		to[it] = at
	case "B":
		var body bodyRow
		decode(&body)
		r.bodies[BodyID(num())] = body
	case "b":
		id := BodyID(num())
		r.chunks[id] = append(r.chunks[id], int(k[0])<<24|int(k[1])<<16|int(k[2])<<8|int(k[3]))
	case "g":
		at, id := mail.Time(num()), BodyID(num())
		r.staged[id] = at
	case "o":
		key := OwedKey{ID: mail.ID(num()), Seq: num()}
		key.Queue = QueueName(k)
		var o Owed
		decode(&o)
		r.owed[key] = o
	case "tr":
		it := Item{ID: mail.ID(num())}
		it.Queue = QueueName(k)
		var rem Removed
		decode(&rem)
		r.trash[it] = rem
	case "x", "w", "br":
	default:
		b.Errorf("a row of unknown kind %s/%q", kind, k)
	}
}

// check holds the rows against what must be true of them after every move.
func (b *bench) check() *rows {
	b.Helper()
	r := b.read()
	b.checkQueues(r)
	b.checkSchedule(r)
	b.checkIndexes(r)
	b.checkBodies(r)
	b.verified()
	if n, err := b.reader().WithoutNext(b.now); n != 0 || err != nil {
		b.Errorf("%d queues with mail have no next event (B24), %v", n, err)
	}
	return r
}

// checkQueues: counts and usage are those of the messages.
func (b *bench) checkQueues(r *rows) {
	b.Helper()
	count := map[QueueName]usage{}
	used := map[mail.Login]usage{}
	held := map[QueueName]int64{}
	for it, m := range r.messages {
		c, u := count[it.Queue], used[it.Queue.Login()]
		count[it.Queue] = usage{c.bytes + m.Size, c.messages + 1}
		used[it.Queue.Login()] = usage{u.bytes + m.Size, u.messages + 1}
		if m.Hold != nil {
			held[it.Queue]++
		}
		if len(m.To) == 0 {
			b.Errorf("message %v is queued for nobody", it)
		}
		if _, ok := r.queues[it.Queue]; !ok {
			b.Errorf("message %v stands in a queue without a row", it)
		}
	}
	for name, q := range r.queues {
		if (usage{q.Bytes, q.Messages}) != count[name] {
			b.Errorf("queue %s counts %d messages of %d bytes; its messages are %+v", name, q.Messages, q.Bytes, count[name])
		}
		if q.Held != held[name] {
			b.Errorf("queue %s counts %d messages with a hold; there are %d", name, q.Held, held[name])
		}
		if name.IsOut() && q.Messages == 0 && q.Hold == nil && (q.Claim == nil || q.Next == 0) { // else the planner comes to it
			b.Errorf("the row of the empty queue %s is still there", name)
		}
	}
	delete(used, "") // out queues
	for login := range b.limits {
		if used[login] != b.used[login] {
			b.Errorf("account %s was charged %+v; its messages are %+v", login, b.used[login], used[login])
		}
	}
}

// checkSchedule: a queue with mail has one next event, and one row for it.
func (b *bench) checkSchedule(r *rows) {
	b.Helper()
	for name, at := range r.sched {
		if q, ok := r.queues[name]; !ok || len(at) != 1 || at[0] != q.Next {
			b.Errorf("queue %s (row: %v) is to be tried at %d but has schedule rows at %v", name, ok, q.Next, at)
		}
	}
	for name, q := range r.queues {
		switch {
		case q.Next != 0 && len(r.sched[name]) != 1:
			b.Errorf("queue %s is to be tried at %d and has no schedule row", name, q.Next)
		case q.Next != 0 && name.IsMailbox():
			b.Errorf("mailbox %s is to be tried", name)
		case q.claimed(b.now) && q.Next != q.Claim.Until:
			b.Errorf("queue %s is claimed until %d but on the schedule at %d: nobody would see the session die", name, q.Claim.Until, q.Next)
		case q.Next == 0 && q.Messages > 0 && !name.IsMailbox() && !(q.held(b.now) && q.Hold.Until == 0):
			b.Errorf("queue %s holds %d messages and has no next event", name, q.Messages)
		case q.Next != 0 && q.Messages == 0 && q.Claim == nil:
			b.Errorf("queue %s is empty and to be tried at %d", name, q.Next)
		case name.IsAccount() && q.Messages > 0 && !q.claimed(b.now) && !q.held(b.now) && q.Next > b.now.Add(b.set.Retry):
			b.Errorf("queue %s is tried only in %v, later than the %v of B3", name, q.Next.Sub(b.now), b.set.Retry)
		}
	}
}

// checkIndexes: the rows beside the messages are those of the messages.
func (b *bench) checkIndexes(r *rows) {
	b.Helper()
	for it, m := range r.messages {
		if !r.where[it] {
			b.Errorf("message %v is not in the index of where messages stand", it)
		}
		if m.Expires != r.expiry[it] {
			b.Errorf("message %v expires at %d; its expiry row says %d", it, m.Expires, r.expiry[it])
		}
	}
	for it := range r.where {
		if _, ok := r.messages[it]; !ok {
			b.Errorf("the index says that message %v stands there; it does not", it)
		}
	}
	for it := range r.expiry {
		if _, ok := r.messages[it]; !ok {
			b.Errorf("there is an expiry row for %v, which is not there", it)
		}
	}
	for it, rem := range r.trash {
		if r.trashEnd[it] != rem.Until {
			b.Errorf("removed message %v is kept until %d; its expiry row says %d", it, rem.Until, r.trashEnd[it])
		}
		if _, ok := r.messages[it]; ok {
			b.Errorf("message %v is queued and removed at once", it)
		}
	}
	if len(r.trashEnd) != len(r.trash) {
		b.Errorf("%d removed messages, %d expiry rows of such", len(r.trash), len(r.trashEnd))
	}
}

// checkBodies: each body is counted as often as it is used, and none is left over.
func (b *bench) checkBodies(r *rows) {
	b.Helper()
	refs := map[BodyID]int{}
	size := map[BodyID]int64{}
	for _, m := range r.messages {
		refs[m.Body]++
		size[m.Body] = m.Size
	}
	for _, o := range r.owed {
		refs[o.Body]++
		size[o.Body] = o.Size
	}
	for _, rem := range r.trash {
		refs[rem.Message.Body]++
		size[rem.Message.Body] = rem.Message.Size
	}
	for id, n := range refs {
		row, ok := r.bodies[id]
		if !ok {
			row = bodyRow{Refs: 1, Chunks: 1}
		}
		if row.Refs != n || row.Staged != 0 {
			b.Errorf("body %s is used %d times: %+v", id, n, row)
		}
		if !slices.Equal(r.chunks[id], upTo(row.Chunks)) {
			b.Errorf("body %s has chunks %v; its row says %d", id, r.chunks[id], row.Chunks)
		}
		if got := len(b.body(id)); int64(got) != size[id] {
			b.Errorf("body %s has %d bytes, its message says %d", id, got, size[id])
		}
	}
	for id, row := range r.bodies {
		if refs[id] > 0 {
			continue
		}
		if at, ok := r.staged[id]; !ok || row.Refs != 0 || row.Staged != at || !slices.Equal(r.chunks[id], upTo(row.Chunks)) {
			b.Errorf("nobody uses body %s, staged until %d: %+v with chunks %v", id, at, row, r.chunks[id])
		}
	}
	for id := range r.chunks {
		if _, ok := r.bodies[id]; !ok && refs[id] == 0 {
			b.Errorf("body %s was left behind", id)
		}
	}
	for id := range r.staged {
		if row := r.bodies[id]; row.Staged == 0 {
			b.Errorf("there is an expiry row for body %s, which is not staged", id)
		}
	}
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

func (b *bench) body(id BodyID) string {
	b.Helper()
	r, err := b.reader().Body(id)
	if err != nil {
		b.Fatalf("body %s: %v", id, err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		b.Errorf("body %s: %v", id, err)
	}
	var copied bytes.Buffer
	r, _ = b.reader().Body(id)
	if _, err := io.Copy(&copied, r); err != nil || copied.String() != string(got) {
		b.Errorf("body %s: copied %q, %v; read %q", id, copied.String(), err, got)
	}
	row, _ := readBody(b.reader().R, id)
	switch small, err := b.reader().Small(id, int64(len(got))); {
	case err != nil, (small != nil) != (row.Chunks == 1), small != nil && string(small) != string(got):
		b.Errorf("body %s: as a small one %q, %v; read %q", id, small, err, got)
	}
	return string(got)
}

const someDays = 30 * 24 * time.Hour
