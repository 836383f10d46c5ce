package spool

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

type usage struct{ bytes, messages int64 }

// bench is a spool on real rows, with a simple account book for the quota. Each
// move is one command: committed whole, or without a trace.
type bench struct {
	tb
	db      *kv.Store
	set     Settings
	now     mail.Time
	index   uint64 // of the log entry: IDs come from it
	limits  map[mail.Login]int64
	used    map[mail.Login]usage
	effects []Effect // of the last move
}

func newBench(t tb) *bench {
	db, err := kv.Open("spool", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Logger: quiet{}})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	at := time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)
	return &bench{tb: t, db: db, set: DefaultSettings(), now: mail.At(at), limits: map[mail.Login]int64{}, used: map[mail.Login]usage{}}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func (b *bench) close() {
	if err := b.db.Close(); err != nil {
		b.Errorf("close: %v", err)
	}
}

func (b *bench) reader() Reader { return Reader{b.db} }

// do makes one move. An error undoes it.
func (b *bench) do(move func(*Moves) error) error {
	b.Helper()
	b.index++
	place := 0
	batch := b.db.Begin()
	over := kv.NewOverlay(batch)
	before := maps.Clone(b.used)
	m := &Moves{Tx: over, Now: b.now, Set: b.set, Charge: b.charge, Refund: b.refund,
		NewID: func() mail.ID { place++; return mail.NewID(b.index, place-1) }}
	if err := move(m); err != nil {
		b.used = before
		if derr := batch.Discard(); derr != nil {
			b.Fatalf("discard: %v", derr)
		}
		return err
	}
	b.effects = m.Effects
	if err := over.Apply(); err != nil {
		b.Fatalf("apply: %v", err)
	}
	if err := batch.Commit(); err != nil {
		b.Fatalf("commit: %v", err)
	}
	return nil
}

// must makes one move that has to succeed.
func (b *bench) must(move func(*Moves) error) {
	b.Helper()
	if err := b.do(move); err != nil {
		b.Fatalf("move: %v", err)
	}
}

// make1 makes one move that has to succeed and gives its reply.
func make1[R any](b *bench, move func(*Moves) (R, error)) R {
	b.Helper()
	var out R
	b.must(func(m *Moves) (err error) { out, err = move(m); return err })
	return out
}

func (b *bench) charge(login mail.Login, size int64) (TargetResult, error) {
	limit, ok := b.limits[login]
	u := b.used[login]
	switch {
	case !ok:
		return TargetResult{Refusal: NoAccount}, nil
	case u.bytes+size > limit:
		return TargetResult{Refusal: OverQuota, Usage: u.bytes, Quota: limit}, nil
	}
	b.used[login] = usage{u.bytes + size, u.messages + 1}
	return TargetResult{}, nil
}

func (b *bench) refund(login mail.Login, bytes, messages int64) error {
	u := b.used[login]
	u = usage{u.bytes - bytes, u.messages - messages}
	if u.bytes < 0 || u.messages < 0 {
		b.Fatalf("account %s was refunded more than it held: %+v", login, u)
	}
	if b.used[login] = u; u == (usage{}) {
		delete(b.used, login)
	}
	return nil
}

func (b *bench) queue(name QueueName) Queue {
	b.Helper()
	q, _, err := b.reader().Queue(name)
	if err != nil {
		b.Fatalf("queue %s: %v", name, err)
	}
	return q
}

// dueEffect reports whether the last move asked for an attempt on a queue.
func (b *bench) dueEffect(q QueueName) bool {
	for _, e := range b.effects {
		if e.Kind == EffectDue && e.Queue == q {
			return true
		}
	}
	return false
}

// story is the bench with verbs, for tests that read like doc/promises.md.
type story struct {
	*bench
	session uint64
	n       int
}

func newStory(t *testing.T) *story {
	b := newBench(t)
	b.limits["jansen"], b.limits["devries"] = 1<<20, 1<<20
	t.Cleanup(func() {
		if !t.Failed() {
			b.check()
		}
		b.close()
	})
	return &story{bench: b}
}

// Wait lets time pass.
func (s *story) Wait(d time.Duration) { s.now = s.now.Add(d) }

// Mail brings one message for an account and gives its ID.
func (s *story) Mail(login mail.Login) mail.ID { s.Helper(); return s.MailTo(AccountQueue(login)) }

// MailTo brings one message of 100 bytes for a queue.
func (s *story) MailTo(q QueueName) mail.ID {
	s.Helper()
	s.n++
	to := mail.Address(fmt.Sprintf("r%d@example.com", s.n))
	got := make1(s.bench, func(m *Moves) (Enqueued, error) {
		return m.Enqueue(Enqueue{Envelope: mail.Envelope{From: "sender@example.net"}, Size: 100,
			Targets: []Target{{Queue: q, To: []mail.Recipient{{Address: to}}}}}, make([]byte, 100))
	})
	if got.ID == 0 {
		s.Fatalf("the message for %s was refused: %+v", q, got.Targets)
	}
	return got.ID
}

// Start claims a queue for a new session, or says why not.
func (s *story) Start(q QueueName, c Cause) Denial {
	s.Helper()
	s.session++
	return make1(s.bench, func(m *Moves) (ClaimResult, error) {
		return m.Claim(Claim{Queue: q, Node: "n1", Session: s.session, Until: s.now.Add(5 * time.Minute), Cause: c})
	}).Denial
}

// End finishes the newest session.
func (s *story) End(q QueueName, o Outcome, change ...func(*Finish)) Finished {
	s.Helper()
	f := Finish{Queue: q, Session: s.session, Outcome: o, Began: s.now, Words: "words"}
	for _, c := range change {
		c(&f)
	}
	return make1(s.bench, func(m *Moves) (Finished, error) { return m.Finish(f) })
}

// Offline makes one attempt on an account's queue that finds nobody there.
func (s *story) Offline(login mail.Login) Finished {
	s.Helper()
	return s.Unreachable(AccountQueue(login))
}

// Unreachable makes one attempt on a queue that reaches nobody.
func (s *story) Unreachable(q QueueName) Finished {
	s.Helper()
	if d := s.Start(q, CauseNone); d != Granted {
		s.Fatalf("%s cannot be tried: denial %d", q, d)
	}
	return s.End(q, OutcomeFailed)
}

// Online makes one attempt that hands over everything and reports how many
// messages that was.
func (s *story) Online(login mail.Login) int {
	s.Helper()
	q := AccountQueue(login)
	if d := s.Start(q, CauseNone); d != Granted {
		s.Fatalf("%s cannot be tried: denial %d", q, d)
	}
	n, last := s.Send(q)
	s.End(q, OutcomeDone, func(f *Finish) { f.Sent, f.SeenTo = n, last })
	return n
}

// Send settles every message of a queue as sent, for the newest session.
func (s *story) Send(q QueueName) (n int, last mail.ID) {
	s.Helper()
	st := Settle{Queue: q, Session: s.session}
	var err error
	for m := range s.reader().Messages(q, 0, &err) {
		r := Result{ID: m.ID}
		for _, to := range m.To {
			r.To = append(r.To, RecipientResult{Address: to.Address, Fate: Sent})
		}
		st.Results = append(st.Results, r)
		last = m.ID
	}
	if err != nil {
		s.Fatalf("messages of %s: %v", q, err)
	}
	return make1(s.bench, func(m *Moves) (Settled, error) { return m.Settle(st) }).Removed, last
}

// Login says that a customer came online; it reports whether that was debounced.
func (s *story) Login(login mail.Login) (debounced bool) {
	s.Helper()
	s.must(func(m *Moves) (err error) { debounced, _, err = m.LoginTrigger(AccountQueue(login)); return err })
	return debounced
}

// Next is how long it is to the queue's next attempt, and for what cause;
// negative: there is none.
func (s *story) Next(q QueueName) (time.Duration, Cause) {
	s.Helper()
	row := s.queue(q)
	if row.Next == 0 {
		return -1, CauseNone
	}
	return row.Next.Sub(s.now), row.Cause
}

// WantNext says when a queue must be due and why.
func (s *story) WantNext(q QueueName, in time.Duration, c Cause) {
	s.Helper()
	if got, cause := s.Next(q); got != in || cause != c {
		s.Errorf("%s is next tried in %v for %q, want in %v for %q", q, got, cause, in, c)
	}
}
