package machine

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"bsmtpd/cluster"
	"bsmtpd/delivery"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

var (
	logins = []mail.Login{"anna", "bert", "carla", "nobody"}
	queues = []spool.QueueName{"account/anna", "account/bert", "account/carla", "mailbox/anna", "out/x.example", "out/y.example", "account/nobody"}
)

// beginning is when every run begins.
var beginning = mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))

// claimLife is how long a session may be unheard of.
const claimLife = 10 * time.Minute

// town is all that is around a machine.
type town struct {
	rng   *rand.Rand
	clock mail.Time // of the node: it never goes back, nor is it behind the machine's time
	skew  mail.Time // by how much the next entry's time differs from it

	log     [][]byte // nil: an entry of Raft's own
	durable int      // of log; more only where a bug is planted
	said    [][]proposal
	replies []uint64 // of each entry, as a digest
	before  []proposal

	node, twin *replica
	model      *model
	bugs       *planted

	plan     *delivery.Plan
	hints    []spool.Effect
	sessions map[spool.QueueName]*session

	acknowledged []copyKey
	got          map[copyKey]int // copies at servers
	excused      map[copyKey]int // of them, those that may come again
	tried        map[spool.Item]bool
	first        map[spool.QueueName]mail.ID // the greatest that was tried in order
	well         bool                        // nothing fails any more

	number int // of letters and sessions
	stats  stats
}

// stats is what a run came across.
type stats struct {
	entries int
	kinds   map[uint64]int // commands that were taken, by kind
	refused map[uint64]int // and of them those that were refused
	faults  map[string]int
}

func newTown(seed uint64, bugs *planted) *town {
	t := &town{rng: rand.New(rand.NewPCG(seed, 7)), clock: beginning, model: newModel(), bugs: bugs, sessions: map[spool.QueueName]*session{},
		got: map[copyKey]int{}, excused: map[copyKey]int{}, tried: map[spool.Item]bool{}, first: map[spool.QueueName]mail.ID{},
		stats: stats{kinds: map[uint64]int{}, refused: map[uint64]int{}, faults: map[string]int{}}}
	make := func(real bool) store {
		if real {
			return newDisk()
		}
		return newMemory()
	}
	// Some towns have the disk of a real node.
	t.node = newReplica("node", make(seed%32 == 0), bugs)
	t.twin = newReplica("twin", make(seed%32 == 16), bugs)
	t.newPlan()
	return t
}

func (t *town) newPlan() {
	t.plan = delivery.NewPlan(delivery.PlanLimits{Sessions: 1 + t.rng.IntN(4), Background: 1, PerNetwork: t.rng.IntN(3), MaxWaiting: 1 + t.rng.IntN(6)})
	t.hints = nil
}

func (t *town) close() {
	t.node.close()
	t.twin.close()
}

func (t *town) happens(in int) bool { return !t.well && t.rng.IntN(in) == 0 }

// fault counts one.
func (t *town) fault(name string) { t.stats.faults[name]++ }

// submit brings commands into the log as one entry; false: the power failed, and
// nobody has heard an answer.
func (t *town) submit(commands ...proposal) ([]cluster.Reply, bool) {
	at := t.clock + t.skew + mail.Time(t.rng.IntN(4_000_000)-2_000_000) // the clocks of two nodes are not one
	t.skew = 0
	e := entry(at, commands...)
	if t.happens(300) {
		t.fault("power fails before an entry is on disk")
		t.crash()
		return nil, false
	}
	if t.rng.IntN(20) == 0 {
		t.append(nil, nil)
		t.node.skip(uint64(len(t.log)))
		t.took(uint64(len(t.log)), nil)
	}
	t.append(e, commands)
	if t.happens(300) {
		t.fault("power fails before an entry is applied")
		t.crash()
		return nil, false
	}
	index := uint64(len(t.log))
	replies, effects := t.node.apply(index, e)
	t.took(index, replies)
	if t.happens(300) {
		t.fault("power fails before an entry is answered")
		t.crash()
		return nil, false
	}
	t.acknowledge(commands, replies)
	if t.happens(15) {
		t.fault("hints are lost")
	} else {
		t.hints = append(t.hints, effects...)
	}
	t.before = append(t.before[max(0, len(t.before)-50):], commands...)
	return replies, true
}

func (t *town) append(e []byte, commands []proposal) {
	t.log, t.said = append(t.log, e), append(t.said, commands)
	if t.bugs == nil || !t.bugs.ackEarly || t.rng.IntN(2) == 0 {
		t.durable = len(t.log)
	}
}

// acknowledge is what senders are told.
func (t *town) acknowledge(commands []proposal, replies []cluster.Reply) {
	for i, r := range replies {
		c, ok := commands[i].fields.(spool.Enqueue)
		out, kept := r.Value.(spool.Enqueued)
		if !ok || !kept || out.ID == 0 {
			continue
		}
		for j, target := range c.Targets {
			for _, to := range target.To {
				if out.Targets[j].Refusal == spool.Accepted {
					t.acknowledged = append(t.acknowledged, copyKey{out.ID, target.Queue, to.Address})
				}
			}
		}
	}
}

// took brings an applied entry into the model. One that was applied before, and
// was brought again after a crash, must have the same replies.
func (t *town) took(index uint64, replies []cluster.Reply) {
	commands, e := t.said[index-1], t.log[index-1]
	if len(replies) != len(commands) {
		fail(7, "entry %d has %d commands and %d replies", index, len(commands), len(replies))
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%+v", replies)
	if int(index) <= len(t.replies) {
		if t.replies[index-1] != h.Sum64() {
			fail(7, "entry %d was answered otherwise when it was brought again: %+v", index, replies)
		}
		return
	}
	t.replies = append(t.replies, h.Sum64())
	t.stats.entries++
	if e != nil {
		t.model.now = max(t.model.now, timeOf(e))
		t.clock = max(t.clock, t.model.now)
	}
	for i, c := range commands {
		kind := kindOf(c.fields)
		t.stats.kinds[kind]++
		if replies[i].Err != nil {
			t.stats.refused[kind]++
		}
		t.model.take(index, c, replies[i])
	}
}

// crash is a power failure of the node: what it held in memory is gone, and the
// log is brought again, also entries that its rows have already.
func (t *town) crash() {
	for _, s := range t.working() {
		t.die(s)
	}
	t.log, t.said = t.log[:t.durable], t.said[:t.durable]
	t.node.crash(t.rng)
	applied := t.node.m.Applied()
	for i := max(1, applied-min(applied, t.rng.Uint64N(5))); i <= uint64(len(t.log)); i++ {
		if e := t.log[i-1]; e == nil {
			t.node.skip(i)
		} else if replies, _ := t.node.apply(i, e); i > applied {
			t.took(i, replies)
		} else if replies != nil {
			fail(7, "entry %d was applied again", i)
		}
		if i > applied && int(i) > len(t.replies) {
			t.took(i, nil)
		}
	}
	t.newPlan()
	t.check()
}

// follow lets the other replica apply some of what it has not.
func (t *town) follow(all bool) {
	applied := t.twin.m.Applied()
	to := uint64(len(t.log))
	if !all && to > applied {
		to = applied + t.rng.Uint64N(to-applied+1)
	}
	for i := max(1, applied-min(applied, t.rng.Uint64N(3))); i <= to; i++ {
		if t.log[i-1] == nil {
			t.twin.skip(i)
		} else if replies, _ := t.twin.apply(i, t.log[i-1]); i <= applied && replies != nil {
			fail(7, "entry %d was applied again", i)
		}
	}
	if all {
		t.same()
	}
}

// restore gives the other replica the rows of the node.
func (t *town) restore() {
	t.fault("a replica is restored from a snapshot")
	t.node.flush()
	t.twin.restore(t.node)
	t.same()
}

// working are the sessions at work, in order.
func (t *town) working() []*session {
	var out []*session
	for _, q := range queues {
		if s := t.sessions[q]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

// live lets a town live through steps, and then heals it. The error is a broken
// promise.
func live(seed uint64, steps int, bugs *planted) (st stats, err error) {
	t := newTown(seed, bugs)
	defer t.close()
	defer func() {
		st = t.stats
		switch r := recover().(type) {
		case nil:
		case broken:
			err = r
		default:
			panic(r)
		}
	}()
	t.settle()
	for i := range steps {
		t.step()
		if i%4 == 0 {
			t.check()
		}
	}
	t.heal()
	return t.stats, nil
}

// heal ends all that is wrong, and expects that everything arrives (8).
func (t *town) heal() {
	t.well = true
	t.release()
	for began := t.clock; ; t.clock += mail.Time(time.Minute.Microseconds()) {
		t.turn()
		for _, s := range t.working() {
			for t.sessions[s.queue] == s {
				t.push(s)
			}
		}
		t.check()
		waits := slices.IndexFunc(queues, func(q spool.QueueName) bool {
			return !q.IsMailbox() && t.model.waiting(q) > 0 && (q.IsAccount() || t.clock.Sub(began) > 5*time.Hour)
		})
		if waits < 0 && !slices.ContainsFunc(queues, func(q spool.QueueName) bool { return q.IsOut() && t.model.waiting(q) > 0 }) {
			break
		}
		if t.clock.Sub(began) > 50*time.Minute && waits >= 0 {
			row, _, _ := t.node.spool().Queue(queues[waits])
			fail(8, "%s after all is well queue %s still holds %d messages: %+v", t.clock.Sub(began), row.Name, row.Messages, row)
		}
	}
	t.submit(proposal{fields: spool.Expire{Limit: wholeExpiry}})
	t.check()
	t.checkBodies()
	t.follow(true)
}
