package machine

import (
	"fmt"
	"math/rand/v2"

	"bsmtpd/cluster"
	"bsmtpd/kv"
	"bsmtpd/spool"
)

// replica is a machine on its rows.
type replica struct {
	name string
	store
	m    *cluster.Machine
	bugs *planted
}

func newReplica(name string, s store, bugs *planted) *replica {
	r := &replica{name: name, store: s, bugs: bugs}
	r.load()
	return r
}

func (r *replica) load() {
	if r.bugs != nil && r.bugs.applyTwice {
		must(r.change(forgetLast))
	}
	m, err := cluster.LoadMachine(r.store)
	must(err)
	r.m = m
}

// apply applies an entry. An entry that was applied before gives no replies.
func (r *replica) apply(index uint64, entry []byte) (replies []cluster.Reply, effects []spool.Effect) {
	must(r.change(func(tx kv.Tx) (err error) {
		replies, effects, err = r.m.Apply(r.bugs.wrap(tx, index), index, entry)
		return err
	}))
	return replies, effects
}

// skip notes an entry of Raft's own.
func (r *replica) skip(index uint64) {
	must(r.change(func(tx kv.Tx) error { return r.m.Skip(tx, index) }))
}

// crash is a power failure; the log has to be brought again.
func (r *replica) crash(rng *rand.Rand) {
	after := r.crashed(rng)
	r.close()
	r.store = after
	r.load()
}

// restore makes the replica a copy of another, as it was at its last flush.
func (r *replica) restore(of *replica) {
	r.close()
	r.store = of.copied()
	r.load()
}

func (r *replica) hash() string {
	h, err := cluster.Hash(r.store)
	must(err)
	return fmt.Sprintf("%x", h[:8])
}

func (r *replica) spool() spool.Reader { return spool.Reader{R: r.store} }
