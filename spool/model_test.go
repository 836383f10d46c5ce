package spool

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/mail"

	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	// One may still say otherwise on the command line.
	flag.Set("rapid.steps", "60")
	flag.Set("rapid.nofailfile", "true")
	flag.Set("rapid.shrinktime", "10s")
	os.Exit(m.Run())
}

// place says where a recipient's copy is: in a queue, owed to the sender as a
// bounce, or removed and still to be brought back.
type place struct {
	kind string
	item Item
}

// model is what must be true, without rows: where each recipient that was
// accepted is, who works on which queue, and what is held.
type model struct {
	*bench
	t *rapid.T

	rcpts    map[mail.Address]mail.Recipient
	null     map[mail.ID]bool // the sender is null
	content  map[mail.ID]string
	size     map[mail.ID]int64
	places   map[mail.Address]place // a recipient that is gone has none
	expires  map[Item]mail.Time     // of mail to the world
	trashEnd map[Item]mail.Time
	claims   map[QueueName]Claimed
	holds    map[QueueName]Hold
	rules    map[Scope]Hold
	staged   map[BodyID]string
	stageEnd map[BodyID]mail.Time
	trigger  map[QueueName]mail.Time // the last login that found mail and was not debounced

	serial int
}

var (
	queueNames = []QueueName{"account/a", "account/b", "mailbox/a", "out/x.example", "out/y.example"}
	notifies   = []mail.Notify{0, mail.NotifyNever, mail.NotifySuccess, mail.NotifyFailure,
		mail.NotifySuccess | mail.NotifyFailure | mail.NotifyDelay}
	steps = []time.Duration{0, time.Microsecond, time.Second, time.Minute, 19 * time.Minute, 20 * time.Minute, 2 * time.Hour, 30 * time.Hour}
)

func TestTheMovesKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		defer m.close()
		m.limits["a"], m.limits["b"] = 120, 1<<20
		m.set.OutLife, m.set.TrashLife = 29*time.Hour, 2*time.Hour // so that they pass within a run
		t.Repeat(map[string]func(*rapid.T){
			"":            m.verify,
			"advance":     m.advance,
			"enqueue":     m.enqueue,
			"enqueue2":    m.enqueue,
			"stage":       m.stage,
			"claim":       m.claim,
			"claim2":      m.claim,
			"settle":      m.settle,
			"settle2":     m.settle,
			"finish":      m.finish,
			"trigger":     m.triggerQueue,
			"login":       m.login,
			"sweep":       m.sweep,
			"expire":      m.expire,
			"act":         m.act,
			"act2":        m.act,
			"hold queue":  m.holdQueue,
			"suspend":     m.suspend,
			"waive":       m.waive,
			"change room": m.changeRoom,
		})
	})
}

func newModel(t *rapid.T) *model {
	return &model{bench: newBench(t), t: t, rcpts: map[mail.Address]mail.Recipient{}, null: map[mail.ID]bool{},
		content: map[mail.ID]string{}, size: map[mail.ID]int64{}, places: map[mail.Address]place{}, expires: map[Item]mail.Time{},
		trashEnd: map[Item]mail.Time{}, claims: map[QueueName]Claimed{}, holds: map[QueueName]Hold{}, rules: map[Scope]Hold{},
		staged: map[BodyID]string{}, stageEnd: map[BodyID]mail.Time{}, trigger: map[QueueName]mail.Time{}}
}

func draw[V any](t *rapid.T, label string, from ...V) V {
	return rapid.SampledFrom(from).Draw(t, label)
}

// verify holds the rows against the model: everybody is in one place, and it is
// the right one.
func (m *model) verify(t *rapid.T) {
	r := m.check()
	got := map[mail.Address]place{}
	put := func(a mail.Address, p place) {
		if was, twice := got[a]; twice {
			t.Errorf("%s is in %v and in %v", a, was, p)
		}
		got[a] = p
	}
	for it, msg := range r.messages {
		for _, to := range msg.To {
			put(to.Address, place{"queue", it})
		}
		if b := m.body(msg.Body); b != m.content[it.ID] {
			t.Errorf("the body of %v has changed from %q to %q", it, m.content[it.ID], b)
		}
		if msg.Expires != m.expires[it] {
			t.Errorf("%v expires at %d, want %d", it, msg.Expires, m.expires[it])
		}
	}
	for k, o := range r.owed {
		for _, to := range o.To {
			put(to.Address, place{"owed", Item{k.Queue, k.ID}})
		}
		if b := m.body(o.Body); b != m.content[k.ID] {
			t.Errorf("the body of the bounce %v has changed", k)
		}
		if o.From.IsNull() {
			t.Errorf("a bounce is owed to nobody: %v", k)
		}
	}
	for it, rem := range r.trash {
		for _, to := range rem.Message.To {
			put(to.Address, place{"trash", it})
		}
	}
	for a, p := range m.places {
		if got[a] != p {
			t.Errorf("%s is in %v, want %v", a, got[a], p)
		}
	}
	for a, p := range got {
		if m.places[a] == (place{}) {
			t.Errorf("%s should be gone and is in %v", a, p)
		}
	}
	for id := range r.staged {
		if _, ok := m.staged[id]; !ok {
			t.Errorf("body %s should not be staged", id)
		}
	}
	if len(r.staged) != len(m.staged) {
		t.Errorf("%d bodies are staged, want %d", len(r.staged), len(m.staged))
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (m *model) advance(t *rapid.T) { m.now = m.now.Add(draw(t, "for", steps...)) }

func (m *model) changeRoom(t *rapid.T) {
	m.limits["a"] = draw[int64](t, "limit", 0, 60, 120, 1000)
}

func (m *model) live(q QueueName) bool { return m.claims[q].Until > m.now }

func (m *model) held(q QueueName) bool {
	h, ok := m.holds[q]
	return ok && (h.Until == 0 || h.Until > m.now)
}

// in gives the recipients in a place, in order.
func (m *model) in(p place) (out []mail.Address) {
	for a, at := range m.places {
		if at == p {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}

// items gives the messages that are in some place of a kind, in order; q empty:
// of all queues.
func (m *model) items(kind string, q QueueName) (out []Item) {
	for _, p := range m.places {
		if p.kind == kind && (q == "" || p.item.Queue == q) && !slices.Contains(out, p.item) {
			out = append(out, p.item)
		}
	}
	slices.SortFunc(out, func(a, b Item) int {
		return strings.Compare(a.ID.String()+string(a.Queue), b.ID.String()+string(b.Queue))
	})
	return out
}

// leave is what becomes of a recipient that failed for good: his sender is told
// if he wants to be.
func (m *model) leave(a mail.Address, it Item) {
	if !m.null[it.ID] && m.rcpts[a].Notify.OnFailure() {
		m.places[a] = place{"owed", it}
	} else {
		delete(m.places, a)
	}
}

// left forgets what is known about a message that left its queue.
func (m *model) left(it Item) {
	if len(m.in(place{"queue", it})) == 0 {
		delete(m.expires, it)
	}
}

func (m *model) targets(t *rapid.T) (out []Target) {
	names := append(slices.Clone(queueNames), "account/gone")
	for _, q := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID).Draw(t, "queues") {
		target := Target{Queue: q}
		for range rapid.IntRange(1, 3).Draw(t, "recipients") {
			m.serial++
			r := mail.Recipient{Address: mail.Address(fmt.Sprintf("r%d@example.com", m.serial)), Notify: draw(t, "notify", notifies...)}
			m.rcpts[r.Address] = r
			target.To = append(target.To, r)
		}
		out = append(out, target)
	}
	return out
}

func (m *model) enqueue(t *rapid.T) {
	c := Enqueue{Targets: m.targets(t)}
	if rapid.Bool().Draw(t, "with a sender") {
		c.Envelope.From = "sender@example.net"
	}
	m.serial++
	body := strings.Repeat(string(rune('a'+m.serial%26)), draw(t, "size", 0, 1, 30, 60))
	wrong := false
	if ids := slices.Sorted(maps.Keys(m.staged)); len(ids) > 0 && rapid.Bool().Draw(t, "staged") {
		c.Staged = draw(t, "body", ids...)
		body = m.staged[c.Staged]
	}
	c.Size = int64(len(body))
	if draw(t, "mistake", 0, 0, 0, 0, 1) == 1 {
		c.Size++
		wrong = true
	}
	var settles []mail.Address
	if owed := slices.SortedFunc(maps.Keys(m.read().owed), func(a, b OwedKey) int { return int(a.Seq) - int(b.Seq) }); len(owed) > 0 && rapid.Bool().Draw(t, "is a bounce") {
		key := draw(t, "owed", owed...)
		c.Settles, c.Envelope.From = &key, mail.Null
		for _, to := range m.read().owed[key].To {
			settles = append(settles, to.Address)
		}
	} else if draw(t, "paid before", 0, 0, 0, 0, 0, 1) == 1 {
		c.Settles = &OwedKey{ID: 1, Queue: "account/a", Seq: 1 << 40}
	}
	inline := []byte(body)
	if c.Staged != 0 {
		inline = nil
	}
	var out Enqueued
	err := m.do(func(mv *Moves) (err error) { out, err = mv.Enqueue(c, inline); return err })
	unpaid := c.Settles != nil && settles == nil
	if err != nil {
		if !wrong && !(unpaid && mail.KindOf(err) == mail.NotFound) {
			t.Fatalf("enqueue: %v", err)
		}
		return
	}
	if wrong || unpaid && out.ID != 0 {
		t.Fatalf("enqueued %+v in spite of a mistake", c)
	}
	m.enqueued(t, c, out, body, settles)
}

// enqueued brings an Enqueue that was answered into the model.
func (m *model) enqueued(t *rapid.T, c Enqueue, out Enqueued, body string, settles []mail.Address) {
	if c.Staged != 0 {
		delete(m.staged, c.Staged)
		delete(m.stageEnd, c.Staged)
	}
	if out.ID == 0 {
		for i, res := range out.Targets {
			if res.Refusal == Accepted {
				t.Fatalf("target %d was accepted without an ID", i)
			}
		}
		return
	}
	if _, again := m.content[out.ID]; again {
		t.Fatalf("ID %s was given twice", out.ID)
	}
	m.null[out.ID], m.content[out.ID], m.size[out.ID] = c.Envelope.From.IsNull(), body, c.Size
	accepted := 0
	for i, target := range c.Targets {
		it := Item{target.Queue, out.ID}
		if target.Queue == "account/gone" && out.Targets[i].Refusal != NoAccount {
			t.Fatalf("mail for an account that is not there: %+v", out.Targets[i])
		}
		for _, to := range target.To {
			if out.Targets[i].Refusal == Accepted {
				m.places[to.Address] = place{"queue", it}
			} else {
				m.leave(to.Address, it)
			}
		}
		if out.Targets[i].Refusal == Accepted {
			accepted++
			if it.Queue.IsOut() {
				m.expires[it] = m.now.Add(m.set.OutLife)
			}
			m.wantTried(t, it.Queue)
		}
	}
	if accepted == 0 {
		t.Fatalf("%s was kept for nobody", out.ID)
	}
	for _, a := range settles {
		delete(m.places, a)
	}
}

// wantTried: new mail is tried at once, unless something stands against it (B1).
func (m *model) wantTried(t *rapid.T, name QueueName) {
	q := m.queue(name)
	if name.IsMailbox() || m.held(name) || m.live(name) || q.Failing || q.Quiet > m.now {
		return
	}
	if q.Next > m.now || q.Next == 0 || !m.dueEffect(name) {
		t.Fatalf("new mail in %s is not tried at once: next %d, now %d", name, q.Next, m.now)
	}
}

func (m *model) stage(t *rapid.T) {
	chunk := strings.Repeat("s", rapid.IntRange(1, 40).Draw(t, "bytes"))
	c := Stage{}
	if ids := slices.Sorted(maps.Keys(m.staged)); len(ids) > 0 && rapid.Bool().Draw(t, "go on") {
		c.Body = draw(t, "body", ids...)
		c.N = m.read().bodies[c.Body].Chunks + draw(t, "off by", 0, 0, 0, -1, 1)
	} else if draw(t, "unknown", 0, 0, 0, 1) == 1 {
		c.Body = 12345
	}
	var out Staged
	err := m.do(func(mv *Moves) (err error) { out, err = mv.Stage(c, []byte(chunk)); return err })
	chunks := m.read().bodies[c.Body].Chunks
	switch {
	case err != nil:
		if _, known := m.staged[c.Body]; mail.KindOf(err) != mail.Invalid || c.Body == 0 || known && c.N <= chunks {
			t.Fatalf("stage %+v: %v", c, err)
		}
	case c.Body == 0:
		m.staged[out.Body] = chunk
		m.stageEnd[out.Body] = m.now.Add(m.set.StageLife)
	case c.N == chunks-1 && len(m.stagedChunks(c.Body)) > len(m.staged[c.Body]):
		m.staged[c.Body] += chunk
	}
}

func (m *model) stagedChunks(id BodyID) string { return m.body(id) }
