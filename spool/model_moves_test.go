package spool

import (
	"maps"
	"slices"
	"time"

	"bsmtpd/mail"

	"pgregory.net/rapid"
)

var nodes = []string{"n1", "n2"}

func (m *model) claim(t *rapid.T) {
	c := Claim{Queue: draw(t, "queue", queueNames...), Node: draw(t, "node", nodes...), Session: draw[uint64](t, "session", 1, 2),
		Until: m.now.Add(draw(t, "for", time.Second, 2*time.Minute, time.Hour)), Cause: draw(t, "cause", CauseLogin, CauseNew, CauseTimer)}
	if len(c.Node) > 0 { // sessions are numbered apart, as the Finish names no node
		c.Session += 10 * uint64(c.Node[1])
	}
	before := m.queue(c.Queue)
	got := make1(m.bench, func(mv *Moves) (ClaimResult, error) { return mv.Claim(c) })
	was := m.claims[c.Queue]
	own := was.Session == c.Session && was.Node == c.Node
	want := Granted
	switch {
	case c.Queue.IsMailbox():
		want = NotPushed
	case before.Messages == 0:
		want = Empty
	case m.held(c.Queue):
		want = Held
	case m.live(c.Queue) && !own:
		want = Taken
	case before.Quiet > m.now || m.suspended(c.Queue):
		want = Held
	}
	if got.Denial != want {
		t.Fatalf("claim of %s: denial %d, want %d", c.Queue, got.Denial, want)
	}
	if got.Denial == Granted {
		m.claims[c.Queue] = Claimed{Node: c.Node, Session: c.Session, Until: c.Until}
		delete(m.holds, c.Queue)
	}
}

func (m *model) suspended(q QueueName) bool {
	for _, s := range []Scope{ScopeAll, Scope(q)} {
		if h, ok := m.rules[s]; ok && (h.Until == 0 || h.Until > m.now) {
			return true
		}
	}
	return false
}

// session draws one that works on a queue, or a stranger.
func (m *model) session(t *rapid.T, q QueueName) uint64 {
	if c, ok := m.claims[q]; ok && draw(t, "whose", 0, 0, 0, 1) == 0 {
		return c.Session
	}
	return 99
}

// wantStale checks what a session is told about its claim. One whose time has
// passed and that nobody else took may be told either.
func (m *model) wantStale(t *rapid.T, q QueueName, session uint64, stale bool) {
	c := m.claims[q]
	if (c.Session != session) && !stale || c.Session == session && m.live(q) && stale {
		t.Fatalf("session %d of %s is told stale=%v; the claim is %+v", session, q, stale, c)
	}
}

func (m *model) settle(t *rapid.T) {
	name := draw(t, "queue", queueNames...)
	c := Settle{Queue: name, Session: m.session(t, name)}
	for _, it := range m.items("queue", name) {
		if draw(t, "has a result", 1, 1, 0) == 0 {
			continue
		}
		res := Result{ID: it.ID, RetryAt: m.now.Add(draw(t, "retry in", 0, time.Minute, time.Hour))}
		for _, a := range m.in(place{"queue", it}) {
			if fate := draw[Fate](t, "fate", 0, Sent, Sent, Deferred, Failed); fate != 0 {
				res.To = append(res.To, RecipientResult{Address: a, Fate: fate, Relayed: rapid.Bool().Draw(t, "relayed")})
			}
		}
		if rapid.Bool().Draw(t, "with a stranger") {
			res.To = append(res.To, RecipientResult{Address: "nobody@example.com", Fate: Sent})
		}
		c.Results = append(c.Results, res)
	}
	c.Results = append(c.Results, Result{ID: 77, To: []RecipientResult{{Address: "r1@example.com", Fate: Failed}}})
	out := make1(m.bench, func(mv *Moves) (Settled, error) { return mv.Settle(c) })
	m.wantStale(t, name, c.Session, out.Stale)
	removed, owed := 0, 0
	for _, res := range c.Results[:len(c.Results)-1] {
		it := Item{name, res.ID}
		for _, to := range res.To {
			if m.settled(it, to, out.Stale) {
				owed++
			}
		}
		if len(res.To) > 0 && len(m.in(place{"queue", it})) == 0 {
			removed++
		}
		m.left(it)
	}
	if out.Removed != removed || out.Owed != owed {
		t.Fatalf("settled %+v, want %d removed, %d owed", out, removed, owed)
	}
}

// settled brings one result into the model; it reports whether the sender is to
// be told.
func (m *model) settled(it Item, to RecipientResult, stale bool) bool {
	if m.places[to.Address] != (place{"queue", it}) || stale && to.Fate != Sent {
		return false
	}
	switch to.Fate {
	case Failed:
		m.leave(to.Address, it)
	case Sent:
		delete(m.places, to.Address)
		if to.Relayed && m.rcpts[to.Address].Notify.OnSuccess() && !m.null[it.ID] {
			m.places[to.Address] = place{"owed", it}
		}
	}
	return m.places[to.Address].kind == "owed"
}

func (m *model) finish(t *rapid.T) {
	name := draw(t, "queue", queueNames...)
	c := Finish{Queue: name, Session: m.session(t, name), Outcome: draw(t, "outcome", OutcomeDone, OutcomeFailed, OutcomeLost, OutcomeNothing),
		Began: m.now.Add(-draw(t, "began before", 0, time.Second, time.Hour)), Sent: draw(t, "sent", 0, 1), Cause: CauseNew}
	if items := m.items("queue", name); len(items) > 0 {
		c.SeenTo = draw(t, "seen to", items...).ID
	}
	if rapid.Bool().Draw(t, "left some") {
		c.EarliestRetry = m.now.Add(draw(t, "retry in", 0, time.Minute, 3*time.Hour))
	}
	again := m.queue(name).Again
	out := make1(m.bench, func(mv *Moves) (Finished, error) { return mv.Finish(c) })
	m.wantStale(t, name, c.Session, out.Stale)
	if out.Stale {
		return
	}
	delete(m.claims, name)
	q := m.queue(name)
	if out.Next != q.Next || out.Left != q.Messages || q.claimed(m.now) {
		t.Fatalf("finished %+v; the queue is %+v", out, q)
	}
	failed := c.Outcome == OutcomeFailed || c.Outcome == OutcomeLost
	if q.Messages == 0 || m.held(name) || q.Quiet > m.now {
		return
	}
	if failed && again != CauseNone && q.Next != m.now {
		t.Fatalf("a session of %s failed after a trigger, which now waits until %d", name, q.Next)
	}
	last := slices.MaxFunc(m.items("queue", name), func(a, b Item) int { return int(a.ID>>16) - int(b.ID>>16) })
	if !failed && c.SeenTo != 0 && last.ID > c.SeenTo && q.Next != m.now {
		t.Fatalf("mail came to %s after what the session saw, and waits until %d", name, q.Next)
	}
}

func (m *model) triggerQueue(t *rapid.T) {
	name := draw(t, "queue", append(slices.Clone(queueNames), "account/gone")...)
	c := Trigger{Queue: name, Cause: draw(t, "cause", CauseOperator, CauseETRN)}
	out := make1(m.bench, func(mv *Moves) (Triggered, error) { return mv.Trigger(c) })
	q := m.queue(name)
	if out.Denial == Granted && q.Next > max(m.now, q.Quiet) || out.Denial == Granted && !m.dueEffect(name) {
		t.Fatalf("triggered %s: it waits until %d", name, q.Next)
	}
}

func (m *model) login(t *rapid.T) {
	name := draw[QueueName](t, "queue", "account/a", "account/b")
	before := m.queue(name)
	var debounced bool
	var messages int64
	m.must(func(mv *Moves) (err error) { debounced, messages, err = mv.LoginTrigger(name); return err })
	last, ever := m.trigger[name]
	inWindow := ever && m.now < last.Add(m.set.LoginWindow)
	if debounced != inWindow {
		t.Fatalf("a login of %s: debounced %v; the last one that found mail was %v ago", name, debounced, m.now.Sub(last))
	}
	if messages != before.Messages {
		t.Fatalf("a login of %s is told of %d messages, there are %d", name, messages, before.Messages)
	}
	if !debounced && messages > before.Held && (m.live(name) || !m.held(name)) {
		m.trigger[name] = m.now
		if q := m.queue(name); !m.live(name) && (q.Next > max(m.now, q.Quiet) || !m.dueEffect(name)) {
			t.Fatalf("a login found mail in %s that is not held, which waits until %d", name, q.Next)
		}
	}
}

func (m *model) sweep(t *rapid.T) {
	c := Sweep{Limit: draw(t, "limit", 1, 2, 100), RepairOnly: rapid.Bool().Draw(t, "repair only")}
	for range 100 {
		out := make1(m.bench, func(mv *Moves) (Swept, error) { return mv.Sweep(c) })
		if out.Repaired != 0 {
			t.Fatalf("a sweep had to repair %d queues", out.Repaired)
		}
		if c.RepairOnly && out.Due != 0 {
			t.Fatalf("a watchdog's round made %d queues due", out.Due)
		}
		if c.After = out.Last; out.Last == "" {
			break
		}
	}
	if c.After != "" {
		t.Fatalf("the sweep does not end")
	}
	for name, q := range m.read().queues {
		if !c.RepairOnly && name.IsAccount() && q.Messages > 0 && !q.claimed(m.now) && !m.held(name) && q.Next > max(m.now, q.Quiet) {
			t.Fatalf("the sweep passed over %s: due only at %d", name, q.Next)
		}
	}
}

func (m *model) expire(t *rapid.T) {
	c := Expire{Limit: draw(t, "limit", 1, 3, 500)}
	more := true
	for n := 0; more; n++ {
		if n > 1000 {
			t.Fatalf("expiry does not end")
		}
		due, err := m.reader().Expirable(m.now)
		if err != nil {
			t.Fatal(err)
		}
		did := make1(m.bench, func(mv *Moves) (Expired, error) { return mv.Expire(c) })
		if more = did.More; !due && did != (Expired{}) {
			t.Fatalf("there was nothing to expire, and yet: %+v", did)
		}
	}
	if due, err := m.reader().Expirable(m.now); due || err != nil {
		t.Fatalf("everything has expired, and yet there is something, %v", err)
	}
	for it, at := range maps.Clone(m.expires) {
		switch {
		case at > m.now:
		case m.live(it.Queue): // it may be on the wire
			m.expires[it] = m.claims[it.Queue].Until
		default:
			for _, a := range m.in(place{"queue", it}) {
				m.leave(a, it)
			}
			delete(m.expires, it)
		}
	}
	for id, at := range maps.Clone(m.stageEnd) {
		if at <= m.now {
			delete(m.staged, id)
			delete(m.stageEnd, id)
		}
	}
	for it, at := range maps.Clone(m.trashEnd) {
		if at <= m.now {
			for _, a := range m.in(place{"trash", it}) {
				delete(m.places, a)
			}
			delete(m.trashEnd, it)
		}
	}
	for s, h := range maps.Clone(m.rules) {
		if h.Until != 0 && h.Until <= m.now {
			delete(m.rules, s)
		}
	}
}

func (m *model) act(t *rapid.T) {
	c := Act{Action: draw(t, "action", ActHold, ActRelease, ActRetry, ActBounce, ActRemove, ActRequeue), By: "op", Reason: "r"}
	from := "queue"
	if c.Action == ActRequeue {
		from = "trash"
	}
	for _, it := range m.items(from, "") {
		if rapid.Bool().Draw(t, "this one") {
			c.Items = append(c.Items, it)
		}
	}
	gone := Item{draw(t, "queue", queueNames...), 77}
	c.Items = append(c.Items, gone)
	out := make1(m.bench, func(mv *Moves) (Acted, error) { return mv.Act(c) })
	if out.Done+out.Missing+len(out.Refused)+len(out.Busy) != len(c.Items) || out.Missing != 1 {
		t.Fatalf("%d messages, answered with %+v", len(c.Items), out)
	}
	for _, it := range c.Items[:len(c.Items)-1] {
		takes := c.Action == ActHold || c.Action == ActBounce || c.Action == ActRemove
		if busy := slices.Contains(out.Busy, it); busy != (takes && m.live(it.Queue)) {
			t.Fatalf("%s of %v: busy %v, and a session is at work: %v", c.Action, it, busy, m.live(it.Queue))
		} else if busy {
			if q := m.queue(it.Queue); q.Quiet <= m.now {
				t.Fatalf("a session of %s is to end for the operator, and the next may begin at once", it.Queue)
			}
			continue
		}
		m.acted(c.Action, it)
	}
}

func (m *model) acted(a Action, it Item) {
	switch a {
	case ActBounce:
		for _, to := range m.in(place{"queue", it}) {
			m.leave(to, it)
		}
	case ActRemove:
		for _, to := range m.in(place{"queue", it}) {
			m.places[to] = place{"trash", it}
		}
		m.trashEnd[it] = m.now.Add(m.set.TrashLife)
	case ActRequeue:
		if _, ok, _ := m.reader().Message(it.Queue, it.ID); !ok {
			return // refused: that all recipients are still in the trash is verified
		}
		for _, to := range m.in(place{"trash", it}) {
			m.places[to] = place{"queue", it}
		}
		delete(m.trashEnd, it)
		if it.Queue.IsOut() {
			m.expires[it] = m.now.Add(m.set.OutLife)
		}
	}
	m.left(it)
}

func (m *model) holdQueue(t *rapid.T) {
	c := HoldQueue{Queue: draw(t, "queue", queueNames...), Release: rapid.Bool().Draw(t, "release"), By: "op"}
	if rapid.Bool().Draw(t, "for a time") {
		c.Until = m.now.Add(draw(t, "for", time.Minute, 2*time.Hour))
	}
	m.must(func(mv *Moves) error { return mv.HoldQueue(c) })
	if c.Release {
		delete(m.holds, c.Queue)
	} else {
		m.holds[c.Queue] = Hold{Until: c.Until}
	}
}

func (m *model) suspend(t *rapid.T) {
	scopes := []Scope{ScopeAll, "account/a", "out/x.example"}
	c := Suspend{Scope: draw(t, "scope", scopes...), Resume: rapid.Bool().Draw(t, "resume"), By: "op"}
	if rapid.Bool().Draw(t, "for a time") {
		c.Until = m.now.Add(time.Hour)
	}
	err := m.do(func(mv *Moves) error { return mv.Suspend(c) })
	_, there := m.rules[c.Scope]
	switch {
	case c.Resume && !there:
		if mail.KindOf(err) != mail.NotFound {
			t.Fatalf("resuming what was not suspended: %v", err)
		}
	case err != nil:
		t.Fatalf("suspend: %v", err)
	case c.Resume:
		delete(m.rules, c.Scope)
	default:
		m.rules[c.Scope] = Hold{Until: c.Until}
	}
}

func (m *model) waive(t *rapid.T) {
	owed := m.read().owed
	keys := slices.SortedFunc(maps.Keys(owed), func(a, b OwedKey) int { return int(a.Seq) - int(b.Seq) })
	if len(keys) == 0 {
		err := m.do(func(mv *Moves) error { return mv.Waive(Waive{Key: OwedKey{ID: 1, Queue: "account/a", Seq: 1}}) })
		if mail.KindOf(err) != mail.NotFound {
			t.Fatalf("waiving what is not owed: %v", err)
		}
		return
	}
	key := draw(t, "owed", keys...)
	m.must(func(mv *Moves) error { return mv.Waive(Waive{Key: key, Reason: "r"}) })
	for _, to := range owed[key].To {
		delete(m.places, to.Address)
	}
}
