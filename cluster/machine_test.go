package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// replica is a machine on its own rows.
type replica struct {
	t    *testing.T
	disk *vfs.MemFS
	db   *kv.Store
	m    *Machine
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func newReplica(t *testing.T, disk *vfs.MemFS) *replica {
	t.Helper()
	r := &replica{t: t, disk: disk}
	var err error
	r.db, err = kv.Open("state", kv.Options{FS: disk, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Logger: silent{}})
	if err == nil {
		r.m, err = LoadMachine(r.db)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// apply applies entries from index first on in one atomic change.
func (r *replica) apply(first uint64, entries ...[]byte) ([][]Reply, []spool.Effect) {
	r.t.Helper()
	tx := r.db.Begin()
	var replies [][]Reply
	var effects []spool.Effect
	for i, e := range entries {
		rep, eff, err := r.m.Apply(tx, first+uint64(i), e)
		if err != nil {
			r.t.Fatal(err)
		}
		replies, effects = append(replies, rep), append(effects, eff...)
	}
	if err := tx.Commit(); err != nil {
		r.t.Fatal(err)
	}
	return replies, effects
}

func (r *replica) hash() string {
	r.t.Helper()
	h, err := Hash(r.db)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%x", h)
}

// cut ends the replica as a power cut would, keeping a random part of what was
// not synced, and starts it again from what is there.
func (r *replica) cut(seed uint64) *replica {
	r.t.Helper()
	after := r.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))})
	r.close()
	return newReplica(r.t, after)
}

func (r *replica) close() {
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
}

func cmd(kind Kind, fields any) command {
	return command{kind: kind, version: rules[kind].version, fields: kv.Encode(fields)}
}

func entryOf(at mail.Time, cs ...command) []byte {
	b := appendEntryHeader(nil, at)
	for i := range cs {
		b = appendCommand(b, &cs[i])
	}
	return b
}

func accountCmd(login string, quota int64) command {
	return cmd(kindPutAccounts, directory.PutAccounts{By: "test", Items: []directory.PutAccount{{IfVersion: directory.AnyVersion,
		Account: directory.Account{Login: mail.Login(login), Quota: quota, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2." + fmt.Sprint(len(login)))}}}}})
}

func mailCmd(body string, queues ...spool.QueueName) command {
	e := spool.Enqueue{Envelope: mail.Envelope{From: "sender@example.net"}, Size: int64(len(body))}
	for i, q := range queues {
		e.Targets = append(e.Targets, spool.Target{Queue: q, To: []mail.Recipient{{Address: mail.Address(fmt.Sprintf("r%d@example.com", i))}}})
	}
	c := cmd(kindEnqueue, e)
	c.beside = []byte(body)
	return c
}

// script makes a log of all kinds of commands, many of which fail. Item IDs are
// guessed, as entries are made before they are applied.
func script(seed uint64, n int) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	at := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	queues := []spool.QueueName{"account/a", "account/bb", "mailbox/a", "out/x.example", "account/nobody"}
	queue := func() spool.QueueName { return queues[rng.IntN(len(queues))] }
	entries := [][]byte{entryOf(at, accountCmd("a", 5000), accountCmd("bb", 1<<20))}
	someID := func() mail.ID { return mail.NewID(1+uint64(rng.IntN(len(entries)+1)), rng.IntN(3)) }
	one := func() command {
		switch rng.IntN(20) {
		case 0:
			return cmd(kindStage, spool.Stage{Body: someID(), N: rng.IntN(2)}) // no chunk: fails
		case 1:
			c := cmd(kindStage, spool.Stage{})
			c.beside = []byte("chunk")
			return c
		case 2, 3:
			return cmd(kindClaim, spool.Claim{Queue: queue(), Node: "n1", Session: rng.Uint64N(3), Until: at.Add(time.Minute), Cause: spool.CauseNew})
		case 4, 5:
			return cmd(kindSettle, spool.Settle{Queue: queue(), Session: rng.Uint64N(3), Results: []spool.Result{{ID: someID(),
				To: []spool.RecipientResult{{Address: "r0@example.com", Fate: spool.Fate(1 + rng.IntN(3)), Reply: mail.Reply{Code: 550, Text: "non \xe9"}}}}}})
		case 6:
			return cmd(kindFinish, spool.Finish{Queue: queue(), Session: rng.Uint64N(3), Outcome: spool.OutcomeFailed, Began: at})
		case 7:
			return cmd(kindTrigger, spool.Trigger{Queue: queue(), Cause: spool.CauseOperator, By: "op"})
		case 8:
			return cmd(kindSweep, spool.Sweep{Limit: rng.IntN(4)})
		case 9:
			return cmd(kindExpire, spool.Expire{Limit: rng.IntN(4)})
		case 10, 11:
			return cmd(kindAct, spool.Act{Action: spool.Action(rng.IntN(8)), Items: []spool.Item{{Queue: queue(), ID: someID()}}, By: "op"})
		case 12:
			return cmd(kindHoldQueue, spool.HoldQueue{Queue: queue(), Release: rng.IntN(3) > 0, By: "op"})
		case 13:
			return cmd(kindSuspend, spool.Suspend{Scope: spool.Scope(queue()), Resume: rng.IntN(3) > 0, By: "op"})
		case 14:
			return cmd(kindWaive, spool.Waive{Key: spool.OwedKey{ID: someID(), Queue: queue(), Seq: rng.Uint64N(5)}})
		case 15:
			return cmd(kindLogin, directory.Event{Kind: directory.EventKind(rng.IntN(7)), Login: "a", Source: "http", NAS: "nas", Session: fmt.Sprint(rng.IntN(3))})
		case 16:
			switch rng.IntN(4) {
			case 0:
				return cmd(kindRemoveAccount, directory.RemoveAccount{Login: "bb", By: "op"})
			case 1:
				return cmd(kindRemoveDomain, directory.RemoveDomain{Name: "a.example", By: "op"})
			case 2:
				return cmd(kindPutDomains, directory.PutDomains{By: "op", Items: []directory.PutDomain{{Domain: directory.Domain{Name: "a.example", Login: "a"}}}})
			}
			s := DefaultSettings()
			s.Spool.Retry = time.Duration(rng.IntN(3)) * time.Minute // 0 is refused
			return cmd(kindPutSettings, s)
		case 17:
			return accountCmd("bb", 1<<20)
		}
		return mailCmd(strings.Repeat("x", rng.IntN(2000)), queue(), "account/a"+spool.QueueName(strings.Repeat("a", rng.IntN(2))))
	}
	for len(entries) < n {
		at = at.Add(time.Duration(rng.IntN(600)-100) * time.Second) // proposers' clocks are not one
		var cs []command
		for range rng.IntN(4) {
			cs = append(cs, one())
		}
		entries = append(entries, entryOf(at, cs...))
	}
	return entries
}

func TestTheSameEntriesMakeTheSameRows(t *testing.T) {
	for seed := range uint64(4) {
		entries := script(seed, 300)
		one := newReplica(t, vfs.NewMem())
		var want [][]Reply
		failed := 0
		for i, e := range entries {
			rep, _ := one.apply(uint64(i+1), e)
			want = append(want, rep...)
			for _, r := range rep[0] {
				if r.Err != nil {
					failed++
				}
			}
		}
		if failed < 20 || failed > len(entries) {
			t.Errorf("seed %d: %d commands failed; the script tests little", seed, failed)
		}
		two := newReplica(t, vfs.NewMem())
		rng := rand.New(rand.NewPCG(seed, 3))
		for i := 0; i < len(entries); {
			if back := rng.IntN(i + 1); rng.IntN(3) == 0 { // Raft brings old entries again after a restart
				before := two.hash()
				replies, effects := two.apply(uint64(back+1), entries[back:i]...)
				if slices.ContainsFunc(replies, func(r []Reply) bool { return r != nil }) || effects != nil || two.hash() != before {
					t.Fatalf("seed %d: entries up to %d were applied twice", seed, i)
				}
			}
			n := min(1+rng.IntN(20), len(entries)-i)
			got, _ := two.apply(uint64(i+1), entries[i:i+n]...)
			for j := range got {
				if fmt.Sprint(got[j]) != fmt.Sprint(want[i+j]) {
					t.Fatalf("seed %d, entry %d: replies %v and %v", seed, i+j+1, got[j], want[i+j])
				}
			}
			i += n
		}
		if one.hash() != two.hash() {
			t.Errorf("seed %d: the same entries made different rows", seed)
		}
		one.close()
		two.close()
	}
}

func TestAReplicaThatIsCutOffAtAnyEntryCatchesUp(t *testing.T) {
	for seed := range uint64(3) {
		entries := script(seed+100, 150)
		whole := newReplica(t, vfs.NewMem())
		whole.apply(1, entries...)
		r := newReplica(t, vfs.NewCrashableMem())
		if err := r.db.Flush(); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(seed, 4))
		for i := 0; i < len(entries); {
			n := min(1+rng.IntN(3), len(entries)-i)
			r.apply(uint64(i+1), entries[i:i+n]...)
			i += n
			flushed := r.m.Applied()
			if rng.IntN(4) == 0 {
				if err := r.db.Flush(); err != nil {
					t.Fatal(err)
				}
			} else {
				flushed = 0
			}
			if rng.IntN(3) > 0 {
				continue
			}
			r = r.cut(uint64(i))
			if got := r.m.Applied(); got > uint64(i) || got < flushed {
				t.Fatalf("seed %d: after a cut at entry %d the rows say %d; flushed were %d", seed, i, got, flushed)
			}
			r.apply(1, entries[:i]...) // the log brings all again
			if got := r.m.Applied(); got != uint64(i) {
				t.Fatalf("seed %d: applied %d after %d entries", seed, got, i)
			}
		}
		if r.hash() != whole.hash() {
			t.Errorf("seed %d: rows differ after power cuts", seed)
		}
		r.close()
		whole.close()
	}
}

func TestAnEntryThatIsNotUnderstoodStopsAndChangesNothing(t *testing.T) {
	at := mail.At(time.Now())
	newer := accountCmd("c", 1)
	newer.version++
	other := entryOf(at, accountCmd("c", 1))
	other[0]++
	torn := entryOf(at, accountCmd("c", 1), mailCmd("body", "account/c"))
	rubbish := accountCmd("c", 1)
	rubbish.fields = []byte{0xff}
	for name, e := range map[string][]byte{
		"unknown kind":   entryOf(at, accountCmd("c", 1), command{kind: 9999, version: 1}),
		"newer version":  entryOf(at, accountCmd("dd", 1), newer),
		"other entry":    other,
		"cut off":        torn[:len(torn)-1],
		"fields damaged": entryOf(at, accountCmd("dd", 1), rubbish),
		"empty":          {},
	} {
		r := newReplica(t, vfs.NewMem())
		r.apply(1, entryOf(at, accountCmd("a", 1000)))
		before := r.hash()
		tx := r.db.Begin()
		replies, effects, err := r.m.Apply(tx, 2, e)
		if err == nil || replies != nil || effects != nil {
			t.Errorf("%s: answered with %v, %v, %v", name, replies, effects, err)
		}
		if err := tx.Discard(); err != nil {
			t.Error(err)
		}
		if again, err := LoadMachine(r.db); r.hash() != before || err != nil || again.Applied() != 1 {
			t.Errorf("%s: something was changed (%v)", name, err)
		}
		r.close()
	}
}

func TestACommandThatFailsLeavesNoTraceAndItsNeighboursStay(t *testing.T) {
	at := mail.At(time.Now())
	// It has taken room and a place in the queue before it finds that the
	// bounce it would settle is not owed.
	half := spool.Enqueue{Size: 4, Settles: &spool.OwedKey{ID: 1, Queue: "account/a", Seq: 1},
		Targets: []spool.Target{{Queue: "account/a", To: []mail.Recipient{{Address: "r@example.com"}}}}}
	bad := cmd(kindEnqueue, half)
	bad.beside = []byte("body")
	r, only := newReplica(t, vfs.NewMem()), newReplica(t, vfs.NewMem())
	defer r.close()
	defer only.close()
	for _, x := range []*replica{r, only} {
		x.apply(1, entryOf(at, accountCmd("a", 1000)))
	}
	replies, effects := r.apply(2, entryOf(at, mailCmd("before", "account/a"), bad, mailCmd("after", "account/a")))
	_, wantEffects := only.apply(2, entryOf(at, mailCmd("before", "account/a"), mailCmd("after", "account/a")))
	got := replies[0]
	if got[0].Err != nil || mail.KindOf(got[1].Err) != mail.NotFound || got[2].Err != nil {
		t.Fatalf("replies: %+v", got)
	}
	if a, b := got[0].Value.(spool.Enqueued).ID, got[2].Value.(spool.Enqueued).ID; a == b {
		t.Error("two messages have one ID")
	}
	if !slices.Equal(effects, wantEffects) {
		t.Errorf("effects %v, want %v", effects, wantEffects)
	}
	if r.hash() != only.hash() {
		t.Error("the failed command left something behind")
	}
}

func TestMachineTimeNeverGoesBack(t *testing.T) {
	r := newReplica(t, vfs.NewCrashableMem())
	at := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	r.apply(1, entryOf(at, accountCmd("a", 1<<20)))
	arrived := func() (last mail.Time) {
		var err error
		for m := range (spool.Reader{R: r.db}).Messages("account/a", 0, &err) {
			last = m.Arrived
		}
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	for i, c := range []struct {
		proposed, want time.Duration
		restart        bool
	}{{time.Hour, time.Hour, false}, {-24 * time.Hour, time.Hour, false}, {0, time.Hour, true}, {2 * time.Hour, 2 * time.Hour, false}} {
		if c.restart {
			if err := r.db.Flush(); err != nil {
				t.Fatal(err)
			}
			r = r.cut(1)
		}
		r.apply(uint64(i+2), entryOf(at.Add(c.proposed), mailCmd("x", "account/a")))
		if got := arrived().Sub(at); got != c.want {
			t.Errorf("a message proposed at %v arrived at %v, want %v", c.proposed, got, c.want)
		}
	}
	r.close()
}

func TestWhatDependsOnTheDiskIsNoAnswer(t *testing.T) {
	for kind := range mail.Broken + 1 {
		err := fmt.Errorf("deep: %w", &mail.Error{Kind: kind, Err: errors.New("x")})
		disk := kind == mail.Other || kind == mail.Unavailable || kind == mail.LowSpace
		if isAnswer(err) == disk {
			t.Errorf("an error of kind %s is an answer: %v", kind, !disk)
		}
	}
	if isAnswer(errors.New("input/output error")) {
		t.Error("a failing disk is taken for an answer")
	}
}
