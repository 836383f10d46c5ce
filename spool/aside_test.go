package spool

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"

	"pgregory.net/rapid"
)

// Whatever row is damaged: each command works on the rest, or refuses what needs
// that row alone; and in the end all mail that is not damaged has gone out, and
// no row is left that does not decode.
func TestADamagedRowStopsNothingButItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		defer m.close()
		m.limits["a"], m.limits["b"] = 1<<20, 1<<20
		moves := []func(*rapid.T){m.enqueue, m.enqueue, m.enqueue, m.stage, m.claim, m.settle, m.act, m.holdQueue, m.suspend, m.advance}
		for range rapid.IntRange(3, 25).Draw(t, "moves") {
			moves[rapid.IntRange(0, len(moves)-1).Draw(t, "move")](t)
		}
		d := &damaging{model: m, key: m.spoil(t)}
		t.Logf("row %q is damaged", d.key)
		order := []func(){d.operate, d.push, d.takeIn, d.tend}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "order") {
			order[i]()
		}
		m.now = m.now.Add(lostClaim + time.Second)
		d.goesOut(t)
	})
}

// spoil damages a row, or adds one whose key is damaged; its key.
func (m *model) spoil(t *rapid.T) []byte {
	m.mustCount()
	var keys [][]byte
	var err error
	for k := range m.db.Scan([]byte{0}, []byte{0xff}, &err) {
		switch kind, _, _ := bytes.Cut(k, []byte("/")); string(kind) {
		case "q", "s", "m", "B", "o", "tr", "x", "w":
			keys = append(keys, bytes.Clone(k))
		}
	}
	for _, short := range []string{"e/\x00", "te/\x00\x01", "g/\x00", "o/12345678", "m/account/a\x00123"} {
		keys = append(keys, []byte(short))
	}
	key := keys[rapid.IntRange(0, len(keys)-1).Draw(t, "row")]
	tx := m.db.Begin()
	if err := tx.Set(key, draw(t, "what it says", []byte{0xff}, []byte{}, []byte{1, 2})); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return key
}

func (m *model) mustCount() {
	if len(m.read().queues) == 0 {
		m.must(func(mv *Moves) error { return mv.HoldQueue(HoldQueue{Queue: "account/a", By: "op"}) })
	}
}

// damaging is the spool with one damaged row.
type damaging struct {
	*model
	key []byte
}

// items gives every message and every removed one, by the keys of the rows alone.
func (d *damaging) keys(prefix string) (out []Item) {
	var err error
	for k := range d.db.Scan([]byte(prefix), kv.PrefixEnd([]byte(prefix)), &err) {
		if id, rest, kerr := cutU64(k[len(prefix):]); kerr == nil {
			out = append(out, Item{QueueName(rest), mail.ID(id)})
		}
	}
	return out
}

func (d *damaging) operate() {
	for _, a := range []Action{ActHold, ActRelease, ActRetry, ActRemove, ActRequeue} {
		items := d.keys(wherePrefix)
		if a == ActRequeue {
			items = d.keys(trashPrefix)
		}
		out := make1(d.bench, func(m *Moves) (Acted, error) { return m.Act(Act{Action: a, Items: items, By: "op"}) })
		if out.Done+out.Missing+len(out.Refused)+len(out.Busy) != len(items) || len(out.Refused) > 1 || out.Missing > 1 {
			d.Fatalf("%s of %d messages: %+v", a, len(items), out)
		}
	}
	if items := d.keys(wherePrefix); len(items) > 0 {
		d.must(func(m *Moves) error {
			_, err := m.Act(Act{Action: ActBounce, Items: items[:1], By: "op"})
			return err
		})
	}
	for _, q := range queueNames {
		d.must(func(m *Moves) error { return m.HoldQueue(HoldQueue{Queue: q, By: "op"}) })
		d.must(func(m *Moves) error { return m.HoldQueue(HoldQueue{Queue: q, By: "op", Release: true}) })
		d.must(func(m *Moves) error { return m.Suspend(Suspend{Scope: Scope(q), By: "op"}) })
		d.must(func(m *Moves) error { return m.Suspend(Suspend{Scope: Scope(q), By: "op", Resume: true}) })
	}
	var err error
	var owed []OwedKey
	for k := range d.db.Scan([]byte(owedPrefix), kv.PrefixEnd([]byte(owedPrefix)), &err) {
		if o, _ := decodeOwed(k, nil); o.Key.Queue != "" {
			owed = append(owed, o.Key)
		}
	}
	for _, k := range owed {
		d.must(func(m *Moves) error { return m.Waive(Waive{Key: k, Reason: "r"}) })
	}
}

// push tries every queue; refused or not, no row is in the way.
func (d *damaging) push() {
	for _, q := range queueNames {
		d.must(func(m *Moves) error { _, err := m.Trigger(Trigger{Queue: q, Cause: CauseOperator}); return err })
		if q.IsAccount() {
			d.must(func(m *Moves) error { _, _, err := m.LoginTrigger(q); return err })
		}
		got := make1(d.bench, func(m *Moves) (ClaimResult, error) {
			return m.Claim(Claim{Queue: q, Node: "n1", Life: time.Minute, Cause: CauseNew})
		})
		fates := []Fate{Sent, Deferred, Failed}
		var results []Result
		for i, it := range d.keys(wherePrefix) {
			if msg, _, err := d.reader().Message(it.Queue, it.ID); it.Queue == q && err == nil {
				results = append(results, Result{ID: it.ID, To: []RecipientResult{{Address: msg.To[0].Address, Fate: fates[i%3]}}})
			} else if it.Queue == q {
				results = append(results, Result{ID: it.ID, To: []RecipientResult{{Address: "r1@example.com", Fate: Sent}}})
			}
		}
		d.must(func(m *Moves) error {
			_, err := m.Settle(Settle{Queue: q, Session: got.Session, Results: results})
			return err
		})
		d.must(func(m *Moves) error {
			_, err := m.Finish(Finish{Queue: q, Session: got.Session, Outcome: OutcomeDone, Began: d.now, SeenTo: 1, Damaged: true})
			return err
		})
	}
}

// takeIn brings mail for every queue, and what was staged.
func (d *damaging) takeIn() {
	to := func(qs ...QueueName) (out []Target) {
		for _, q := range qs {
			out = append(out, Target{Queue: q, To: []mail.Recipient{{Address: "new@example.com"}}})
		}
		return out
	}
	d.must(func(m *Moves) error {
		_, err := m.Enqueue(Enqueue{Size: 1, Targets: to(queueNames...)}, []byte("x"))
		return err
	})
	d.must(func(m *Moves) error { _, err := m.Stage(Stage{}, []byte("x")); return err })
	for id, body := range d.staged {
		err := d.do(func(m *Moves) error {
			_, err := m.Enqueue(Enqueue{Size: int64(len(body)), Staged: id, Targets: to("account/a")}, nil)
			return err
		})
		if err != nil && !(mail.KindOf(err) == mail.Broken && bytes.Equal(d.key, bodyKey(id))) && mail.KindOf(err) != mail.Invalid {
			d.Fatalf("a staged body: %v", err)
		}
	}
}

// tend is what the housekeeper does, for days.
func (d *damaging) tend() {
	for range 3 {
		d.must(func(m *Moves) error { _, err := m.Sweep(Sweep{Limit: MaxItems}); return err })
		for more, n := true, 0; more; n++ {
			more = make1(d.bench, func(m *Moves) (Expired, error) { return m.Expire(Expire{Limit: 2}) }).More
			if n > 1000 {
				d.Fatalf("what is past its life comes to no end")
			}
		}
		d.now = d.now.Add(30 * time.Hour)
	}
}

// goesOut: with nothing in the way any more, all mail leaves.
func (d *damaging) goesOut(t *rapid.T) {
	d.must(func(m *Moves) error { _, err := m.Sweep(Sweep{Limit: MaxItems}); return err })
	for _, s := range append([]Scope{ScopeAll}, "account/a", "out/x.example") {
		if err := d.do(func(m *Moves) error { return m.Suspend(Suspend{Scope: s, Resume: true, By: "op"}) }); err != nil && mail.KindOf(err) != mail.NotFound {
			t.Fatal(err)
		}
	}
	d.now = d.now.Add(lostClaim + time.Hour) // the claims of the moves before are over, too
	for _, q := range queueNames {
		d.must(func(m *Moves) error { return m.HoldQueue(HoldQueue{Queue: q, By: "op", Release: true}) })
		if q.IsMailbox() {
			continue
		}
		got := make1(d.bench, func(m *Moves) (ClaimResult, error) {
			return m.Claim(Claim{Queue: q, Node: "n1", Life: time.Minute, Cause: CauseOperator})
		})
		if row := d.queue(q); got.Denial != Granted && row.Messages > 0 {
			t.Fatalf("queue %s cannot be pushed: denial %d, %+v", q, got.Denial, row)
		}
		var results []Result
		var err error
		for msg := range d.reader().Messages(q, 0, &err) {
			res := Result{ID: msg.ID}
			for _, to := range msg.To {
				res.To = append(res.To, RecipientResult{Address: to.Address, Fate: Sent})
			}
			results = append(results, res)
		}
		d.must(func(m *Moves) error {
			_, err := m.Settle(Settle{Queue: q, Session: got.Session, Results: results})
			return err
		})
		d.must(func(m *Moves) error {
			_, err := m.Finish(Finish{Queue: q, Session: got.Session, Outcome: OutcomeDone, Began: d.now, Damaged: true})
			return err
		})
		if row := d.queue(q); row.Messages != 0 || row.Bytes != 0 {
			t.Fatalf("queue %s holds %d messages of %d bytes after all was sent", q, row.Messages, row.Bytes)
		}
	}
	d.tend()
	var err error
	for k, v := range d.db.Scan([]byte{0}, []byte{0xff}, &err) {
		if bytes.Equal(k, d.key) && !slices.Contains([]string{"B", "w", "s"}, string(k[:1])) && len(v) < 3 && string(k[:2]) != "x/" {
			t.Errorf("the damaged row %q is still there", k)
		}
	}
	if string(d.key[:2]) == bodyPrefix { // which stays
		tx := d.db.Begin()
		if tx.Delete(d.key) != nil || tx.Commit() != nil {
			t.Fatal("the body's row cannot be deleted")
		}
	}
	r := d.read()
	d.checkQueues(r)
	d.checkSchedule(r)
	d.checkIndexes(r)
}
