package machine

import (
	"fmt"
	"maps"
	"slices"

	"bsmtpd/cluster"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// broken is a promise that does not hold: which of doc/promises.md, or 0 for an
// answer or a row that is not what the model says.
type broken struct {
	promise int
	what    string
}

func (b broken) Error() string { return fmt.Sprintf("promise %d: %s", b.promise, b.what) }

// fail ends a run.
func fail(promise int, format string, args ...any) {
	panic(broken{promise, fmt.Sprintf(format, args...)})
}

// copyKey is one recipient's copy of a message.
type copyKey struct {
	id    mail.ID
	queue spool.QueueName
	to    mail.Address
}

// where a copy is.
type place string

const (
	queued  place = "queued"
	removed place = "removed" // by an operator, and can be brought back
	owed    place = "owed"    // its sender is to be told
	told    place = "told"    // and was
	waived  place = "waived"  // nobody could be told
	nobody  place = "nobody"  // failed, and nobody wants to know
	gone    place = "gone"    // removed for good
	done    place = "done"    // delivered
)

// fate is what became of a copy.
type fate struct {
	place place
	sent  bool
}

// message is one in a queue, or one that was removed from it.
type message struct {
	size    int64
	body    string
	null    bool
	to      []mail.Recipient // that are left
	expires mail.Time
	moved   bool // an operator did something to it
	held    bool // and that is, it is held
}

// model is what must be so, in maps. It is told each command with its reply, in the
// order of the log, and fails the run where the reply is not what it expects.
type model struct {
	now mail.Time
	set cluster.Settings

	accounts map[mail.Login]int64 // quota as set
	domains  map[mail.Domain]mail.Login
	copies   map[copyKey]fate
	queues   map[spool.Item]*message
	trash    map[spool.Item]*message
	trashEnd map[spool.Item]mail.Time
	claims   map[spool.QueueName]spool.Claimed
	holds    map[spool.QueueName]mail.Time // 0: for ever
	rules    map[spool.Scope]mail.Time
	staged   map[spool.BodyID]*stagedBody
	debts    map[spool.OwedKey]debt // those that were read for a Settles or Waive

	windows  map[mail.Login]mail.Time // when a login last found mail
	triggers map[mail.Login]int       // such logins
	tries    map[mail.Login]int       // claims that were granted for a login
	sessions map[string]bool          // of access servers, heard of
	numbers  map[uint64]bool          // of push sessions
	retry    int64                    // the longest Retry so far, µs
}

type stagedBody struct {
	content string
	chunks  int
	until   mail.Time
}

// debt is an owed bounce.
type debt struct {
	to   []mail.Address
	paid bool
}

func newModel() *model {
	m := &model{set: cluster.DefaultSettings(), accounts: map[mail.Login]int64{}, domains: map[mail.Domain]mail.Login{}, copies: map[copyKey]fate{},
		queues: map[spool.Item]*message{}, trash: map[spool.Item]*message{}, trashEnd: map[spool.Item]mail.Time{},
		claims: map[spool.QueueName]spool.Claimed{}, holds: map[spool.QueueName]mail.Time{}, rules: map[spool.Scope]mail.Time{},
		staged: map[spool.BodyID]*stagedBody{}, debts: map[spool.OwedKey]debt{}, windows: map[mail.Login]mail.Time{},
		triggers: map[mail.Login]int{}, tries: map[mail.Login]int{}, sessions: map[string]bool{}, numbers: map[uint64]bool{}}
	m.retry = m.set.Spool.Retry.Microseconds()
	return m
}

// take brings one command of the entry at an index into the model.
func (m *model) take(index uint64, p proposal, r cluster.Reply) {
	switch c := p.fields.(type) {
	case spool.Enqueue:
		m.enqueue(index, c, p.beside, r)
	case spool.Stage:
		m.stage(c, p.beside, r)
	case spool.Claim:
		m.claim(c, answer[spool.ClaimResult](r))
	case spool.Settle:
		m.settle(c, answer[spool.Settled](r))
	case spool.Finish:
		m.finish(c, answer[spool.Finished](r))
	case spool.Trigger:
		answer[spool.Triggered](r)
	case spool.Sweep:
		m.sweep(c, r)
	case spool.Expire:
		m.expire(c, r)
	case spool.Act:
		m.act(c, answer[spool.Acted](r))
	case spool.HoldQueue:
		m.holdQueue(c, r.Err)
	case spool.Suspend:
		m.suspend(c, r.Err)
	case spool.Waive:
		m.pay(c.Key, waived, r.Err)
	case directory.Event:
		m.login(c, r)
	case directory.PutAccounts:
		m.putAccounts(c, answer[[]directory.Put](r))
	case directory.PutDomains:
		m.putDomains(c, answer[[]directory.Put](r))
	case directory.RemoveAccount:
		m.removeAccount(c, r.Err)
	case directory.RemoveDomain:
		want(r.Err, m.domains[c.Name] == "", mail.NotFound)
		delete(m.domains, c.Name)
	case cluster.Settings:
		m.putSettings(c, r.Err)
	default:
		panic(fmt.Sprintf("the model does not know %T", c))
	}
}

// answer is the reply of a command that cannot fail.
func answer[R any](r cluster.Reply) R {
	if r.Err != nil {
		fail(0, "a command was refused: %v", r.Err)
	}
	return r.Value.(R)
}

// want compares whether a command was refused.
func want(err error, refused bool, kind mail.Kind) {
	if refused != (err != nil) || err != nil && mail.KindOf(err) != kind {
		fail(0, "a command was answered with %v; to be refused: %v", err, refused)
	}
}

func (m *model) live(q spool.QueueName) bool { return m.claims[q].Until > m.now }

func (m *model) held(q spool.QueueName) bool {
	until, ok := m.holds[q]
	return ok && (until == 0 || until > m.now)
}

func (m *model) suspended(q spool.QueueName) bool {
	for _, s := range []spool.Scope{spool.ScopeAll, spool.Scope(q)} {
		if until, ok := m.rules[s]; ok && (until == 0 || until > m.now) {
			return true
		}
	}
	return false
}

// holding is what an account's or a queue's messages are together.
func (m *model) holding(in func(spool.QueueName) bool) (bytes, messages int64) {
	for it, msg := range m.queues {
		if in(it.Queue) {
			bytes, messages = bytes+msg.size, messages+1
		}
	}
	return bytes, messages
}

func (m *model) usage(login mail.Login) (bytes, messages int64) {
	return m.holding(func(q spool.QueueName) bool { return q.Login() == login })
}

func (m *model) waiting(q spool.QueueName) int64 {
	_, n := m.holding(func(name spool.QueueName) bool { return name == q })
	return n
}

// charge says whether an account has room.
func (m *model) charge(q spool.QueueName, size int64) spool.Refusal {
	login := q.Login()
	if login == "" {
		return spool.Accepted
	}
	set, ok := m.accounts[login]
	if !ok {
		return spool.NoAccount
	}
	if used, _ := m.usage(login); used+size > m.set.Limits.QuotaOf(&directory.Account{Quota: set}) {
		return spool.OverQuota
	}
	return spool.Accepted
}

func (m *model) enqueue(index uint64, c spool.Enqueue, body []byte, r cluster.Reply) {
	content, badBody := string(body), int64(len(body)) != c.Size
	if c.Staged != 0 {
		s := m.staged[c.Staged]
		if badBody = s == nil || int64(len(s.content)) != c.Size; !badBody {
			content = s.content
		}
	}
	if badBody {
		want(r.Err, true, mail.Invalid)
		return
	}
	var refusals []spool.Refusal
	accepted := 0
	room := map[mail.Login]int64{} // what targets before took
	for _, t := range c.Targets {
		login := t.Queue.Login()
		no := m.charge(t.Queue, room[login]+c.Size)
		if no == spool.Accepted {
			room[login] += c.Size
			accepted++
		}
		refusals = append(refusals, no)
	}
	if c.Settles != nil && accepted > 0 {
		if m.pay(*c.Settles, told, r.Err); r.Err != nil {
			return
		}
	}
	out := answer[spool.Enqueued](r)
	for i, res := range out.Targets {
		if res.Refusal != refusals[i] {
			promise := 0
			if res.Refusal == spool.Accepted {
				promise = 3
			}
			fail(promise, "a message of %d bytes for %s was answered with refusal %d; expected %d", c.Size, c.Targets[i].Queue, res.Refusal, refusals[i])
		}
	}
	if c.Staged != 0 {
		delete(m.staged, c.Staged)
	}
	if (out.ID != 0) != (accepted > 0) || out.ID != 0 && uint64(out.ID)>>16 != index {
		fail(0, "a message in entry %d got the ID %s; %d queues have room", index, out.ID, accepted)
	}
	for i, t := range c.Targets {
		if out.ID == 0 {
			break
		}
		it := spool.Item{Queue: t.Queue, ID: out.ID}
		if m.queues[it] != nil {
			fail(0, "the ID %s was given twice", out.ID)
		}
		msg := &message{size: c.Size, body: content, null: c.Envelope.From.IsNull(), to: slices.Clone(t.To)}
		for _, to := range t.To {
			m.copies[copyKey{it.ID, it.Queue, to.Address}] = fate{place: queued}
		}
		if refusals[i] != spool.Accepted {
			m.giveUp(it, msg)
			continue
		}
		if t.Queue.IsOut() {
			msg.expires = m.now.Add(m.set.Spool.OutLife)
		}
		m.queues[it] = msg
	}
}

// giveUp: the recipients that are left have failed.
func (m *model) giveUp(it spool.Item, msg *message) {
	for _, to := range msg.to {
		m.failed(it, msg, to)
	}
	delete(m.queues, it)
}

func (m *model) failed(it spool.Item, msg *message, to mail.Recipient) {
	k := copyKey{it.ID, it.Queue, to.Address}
	if to.Notify.OnFailure() && !msg.null {
		m.copies[k] = fate{place: owed}
	} else {
		m.copies[k] = fate{place: nobody}
	}
}

// knows notes an owed bounce that somebody has read.
func (m *model) knows(o spool.Owed) {
	if _, ok := m.debts[o.Key]; ok {
		return
	}
	var d debt
	for _, to := range o.To {
		d.to = append(d.to, to.Address)
	}
	m.debts[o.Key] = d
}

// pay: an owed bounce is queued, or dropped.
func (m *model) pay(k spool.OwedKey, to place, err error) {
	d, known := m.debts[k]
	want(err, !known || d.paid, mail.NotFound)
	if err != nil {
		return
	}
	for _, a := range d.to {
		key := copyKey{k.ID, k.Queue, a}
		m.copies[key] = fate{to, m.copies[key].sent}
	}
	d.paid = true
	m.debts[k] = d
}

func (m *model) stage(c spool.Stage, chunk []byte, r cluster.Reply) {
	s := m.staged[c.Body]
	bad := len(chunk) == 0 || c.Body == 0 && c.N != 0 || c.Body != 0 && (s == nil || c.N > s.chunks)
	want(r.Err, bad, mail.Invalid)
	if bad {
		return
	}
	id := answer[spool.Staged](r).Body
	switch {
	case c.Body == 0:
		m.staged[id] = &stagedBody{string(chunk), 1, m.now.Add(m.set.Spool.StageLife)}
	case c.N == s.chunks:
		s.content += string(chunk)
		s.chunks++
	}
}

// items gives the keys of a map in order.
func items[V any](in map[spool.Item]V) []spool.Item {
	return slices.SortedFunc(maps.Keys(in), func(a, b spool.Item) int {
		if a.ID != b.ID {
			return int(int64(a.ID) - int64(b.ID))
		}
		return slices.Compare([]byte(a.Queue), []byte(b.Queue))
	})
}
