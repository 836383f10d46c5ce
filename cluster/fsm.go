package cluster

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"bsmtpd/spool"

	"github.com/hashicorp/raft"
)

// fsm brings Raft's entries to the machine. Raft calls its methods from one
// goroutine, Persist excepted.
type fsm struct {
	node    *Node
	machine *Machine

	bytes int64         // of log applied since the last snapshot was asked for
	due   chan struct{} // 1 deep: a snapshot is due

	directory atomic.Uint64 // the machine's, for readers beside the log

	mu      sync.Mutex // guards current
	current Settings   // the machine's, for readers beside the log
}

func newFSM(n *Node, m *Machine) *fsm {
	return &fsm{node: n, machine: m, due: make(chan struct{}, 1), current: m.Settings()}
}

var (
	_ raft.FSM         = (*fsm)(nil)
	_ raft.BatchingFSM = (*fsm)(nil)
)

func (f *fsm) settings() Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: all entries in one atomic change of
// the rows, the index of the last among them. After a failure nothing is applied
// any more: the rows stay at a prefix of the log.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if f.node.Failed() != nil {
		return out
	}
	effects, err := f.apply(logs, out)
	if err != nil {
		f.node.fail(fmt.Errorf("apply: %w", err))
		clear(out)
		return out
	}
	f.mu.Lock()
	f.current = f.machine.Settings()
	f.mu.Unlock()
	f.tellDamage(effects)
	if len(effects) > 0 && f.node.opts.Effects != nil {
		f.node.opts.Effects(effects)
	}
	if f.bytes >= f.node.opts.SnapshotBytes {
		f.bytes = 0
		select {
		case f.due <- struct{}{}:
		default:
		}
	}
	return out
}

// tellDamage tells of rows that do not decode.
func (f *fsm) tellDamage(effects []spool.Effect) {
	for _, e := range effects {
		if e.Kind == spool.EffectDamaged {
			f.node.metrics.damaged.Inc()
			f.node.log.Error("a row is damaged; it was set aside or is passed over, and the others go on. \"bsmtpd spool verify\" tells more", "queue", e.Queue, "error", e.Text)
		}
	}
}

func (f *fsm) apply(logs []*raft.Log, out []any) ([]spool.Effect, error) {
	size := 0
	for _, l := range logs {
		size += len(l.Data) + len(l.Data)/4 // and the rows beside the bodies
	}
	tx := f.node.db.BeginSized(size)
	var effects []spool.Effect
	for i, l := range logs {
		f.bytes += int64(len(l.Data))
		if l.Type != raft.LogCommand {
			if err := f.machine.Skip(tx, l.Index); err != nil {
				return nil, err
			}
			continue
		}
		replies, eff, err := f.machine.Apply(tx, l.Index, l.Data)
		if err != nil {
			return nil, err
		}
		out[i] = replies
		effects = append(effects, eff...)
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	f.directory.Store(f.machine.directory)
	f.node.clock.applied(f.machine.Now())
	f.node.metrics.applied.Set(float64(f.machine.Applied()))
	return effects, nil
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.node.Failed(); err != nil {
		return nil, err
	}
	return flushed{f.node}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	r.Close()
	return errNoStream
}

// flushed is a snapshot: the rows made durable where they are.
type flushed struct{ node *Node }

// Persist implements raft.FSMSnapshot. Entries applied since Snapshot may be
// flushed along; they are skipped when the log brings them again.
func (s flushed) Persist(sink raft.SnapshotSink) error {
	if err := s.node.db.Flush(); err != nil {
		sink.Cancel()
		return fmt.Errorf("flush the rows: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s flushed) Release() {}
