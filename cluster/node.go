package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/quota"
	"bsmtpd/spool"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
)

// Options say how a Node runs. Zero values mean the default beside them.
type Options struct {
	Dir      string // data directory
	Node     string // this node's name in the cluster
	Init     bool   // an empty data directory is meant: see openIdentity
	Settings Settings
	Provider []mail.Domain // the provider's own mail domains, for Directory

	ApplyTimeout  time.Duration // 10 s: how long a command may wait to be committed
	Heartbeat     time.Duration // 50 ms: how long without a leader until an election
	SnapshotBytes int64         // 64 MiB of log between two snapshots
	CacheBytes    int64         // see kv.Options
	MemTableBytes uint64
	OpenFiles     int              // see kv.Options
	Still         bool             // for simulated time
	Wall          func() time.Time // the wall clock, for a simulated one that is wrong; nil: the system's

	Log      *slog.Logger
	Registry *metric.Registry

	// Effects is told what rows ask for, after they can be read. It must not
	// block: the log waits for it.
	Effects func([]spool.Effect)

	// Fatal is told once that the disk has failed. What was acknowledged is
	// still safe on it or on a majority; the process must stop and must not
	// believe this disk again without a check.
	Fatal func(error)
}

// Node is this machine's part of the cluster.
type Node struct {
	opts     Options
	host     host.Host
	identity Identity
	log      *slog.Logger
	metrics  metrics

	db       *kv.Store
	wal      *wal.WAL
	mark     *mark
	snaps    *snapshotStore
	raft     *raft.Raft
	fsm      *fsm
	proposer *proposer
	chunks   chunkPool
	clock    *clock
	patience patience
	damage   damage

	stop     chan struct{}
	wg       sync.WaitGroup
	closing  sync.Once
	closeErr error

	failMu  sync.Mutex
	failed  error         // why the node must stop; set once
	failing chan struct{} // closed when failed is set
}

// trailingLogs stay in the log after a snapshot. At least one must, so that the
// guard at the next start can compare log and rows.
const trailingLogs = 64

// Open opens the data directory and starts taking part in the cluster. The node
// answers proposals when WaitReady has returned.
func Open(h host.Host, o Options) (*Node, error) {
	if o.ApplyTimeout == 0 {
		o.ApplyTimeout = 10 * time.Second
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 50 * time.Millisecond
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 64 << 20
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	id, err := openIdentity(h, o.Dir, o.Node, o.Init, mail.At(o.Wall()))
	if err != nil {
		return nil, err
	}
	n := &Node{opts: o, host: h, identity: id, log: o.Log, metrics: newMetrics(o.Registry), stop: make(chan struct{}), failing: make(chan struct{})}
	n.patience.node = n
	if err := n.unlessFailed(n.open); err != nil {
		return nil, errors.Join(err, n.unlessFailed(n.closeStores))
	}
	n.patience.allow()
	n.wg.Add(1)
	go n.snapshotLoop()
	n.wg.Go(func() { n.mark.run(n.stop) })
	return n, nil
}

func (n *Node) open() error {
	for _, sub := range []string{logDir, stateDir, snapshotDir} {
		if err := n.host.FS.MkdirAll(path.Join(n.opts.Dir, sub), 0o700); err != nil {
			return fmt.Errorf("make folder of the data directory: %w", err)
		}
	}
	if err := host.SyncDir(n.host.FS, n.opts.Dir); err != nil {
		return err
	}
	dir := path.Join(n.opts.Dir, logDir)
	files := walFS{n.host.FS, &n.patience}
	last, err := n.inspect()
	if err != nil {
		return err
	}
	if err := n.openRows(); err != nil {
		return err
	}
	if n.mark, err = openMark(n.host.FS, dir, last, n.markFailed); err != nil {
		return fmt.Errorf("open the log in %s: %w", dir, err)
	}
	n.wal, err = wal.Open(dir, wal.WithSegmentFiler(segment.NewFiler(dir, files)), wal.WithMetaStore(&metaFile{fs: n.host.FS, wait: &n.patience}),
		wal.WithSegmentSize(walSegmentBytes), wal.WithLogger(raftLogger(n.log)))
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", dir, err)
	}
	n.snaps = &snapshotStore{fs: n.host.FS, dir: path.Join(n.opts.Dir, snapshotDir)}
	machine, err := LoadMachine(n.db)
	if err != nil {
		return err
	}
	if err := n.checkContinuity(machine.Applied()); err != nil {
		return err
	}
	n.clock = newClock(n.opts.Wall, machine.Now(), n.log, n.metrics.clock)
	n.fsm = newFSM(n, machine)
	return n.startRaft()
}

// openRows opens the state database for good.
func (n *Node) openRows() (err error) {
	n.db, err = openState(n.host.FS, n.opts.Dir, stateLogger{n}, kv.Options{FS: stateFS{n.host.FS, &n.patience}, CacheBytes: n.opts.CacheBytes,
		MemTableBytes: n.opts.MemTableBytes, OpenFiles: n.opts.OpenFiles, Still: n.opts.Still, MustExist: n.identity.Ready, Damaged: n.damaged})
	return errors.Join(err, n.Failed())
}

// checkContinuity refuses a log and rows that cannot belong together: a part of
// the directory was lost or comes from another time. Going on would silently
// drop acknowledged mail.
func (n *Node) checkContinuity(applied uint64) error {
	first, err := n.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.wal.LastIndex()
	if err != nil {
		return err
	}
	metas, err := n.snaps.List()
	if err != nil {
		return err
	}
	return continuity(n.opts.Dir, n.identity.Ready, first, last, applied, metas)
}

func (n *Node) startRaft() error {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.opts.Node)
	conf.Logger = raftLogger(n.log)
	conf.NoSnapshotRestoreOnStart = true
	conf.SnapshotThreshold = 1 << 62 // by bytes, see snapshotLoop
	conf.SnapshotInterval = time.Hour
	conf.TrailingLogs = trailingLogs
	conf.MaxAppendEntries = 64
	conf.BatchApplyCh = true
	conf.NoLegacyTelemetry = true
	// The only voter waits for nobody: a short time lets it lead at once.
	conf.HeartbeatTimeout = n.opts.Heartbeat
	conf.ElectionTimeout = n.opts.Heartbeat
	conf.LeaderLeaseTimeout = n.opts.Heartbeat
	addr, trans := raft.NewInmemTransport(raft.ServerAddress(n.opts.Node))
	logs := &syncedLog{WAL: n.wal, node: n}
	if err := n.forgetHalfStart(); err != nil {
		return err
	}
	exists, err := raft.HasExistingState(logs, n.wal, n.snaps)
	if err != nil {
		return fmt.Errorf("look for an existing log: %w", err)
	}
	if !exists {
		first := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: addr}}}
		if err := raft.BootstrapCluster(conf, logs, n.wal, n.snaps, trans, first); err != nil {
			return fmt.Errorf("write the first entry of the log: %w", err)
		}
	}
	n.raft, err = raft.NewRaft(conf, n.fsm, logs, &stableStore{n.wal, n}, n.snaps, trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.proposer = newProposer(n)
	return nil
}

// forgetHalfStart makes a start that ended between raft's two first writes, the
// term and the entry, as if it had not been: with a term alone raft neither makes
// the first entry nor ever finds a leader. Only a log that never held an entry is
// touched: see checkContinuity.
func (n *Node) forgetHalfStart() error {
	last, err := n.wal.LastIndex()
	if err != nil || last > 0 || n.identity.Ready {
		return err
	}
	return n.wal.SetUint64([]byte("CurrentTerm"), 0)
}

// WaitReady returns when this node has applied everything that was committed
// before, and takes proposals. After the first time the directory is marked as
// one that must never be found empty again.
func (n *Node) WaitReady(ctx context.Context) error {
	for {
		if err := n.Failed(); err != nil {
			return err
		}
		// An entry without commands, and not raft's Barrier: that one would count
		// for the index of a snapshot and never come to the rows, which would
		// look as if rows were missing (checkContinuity).
		if n.raft.State() == raft.Leader && n.first(ctx) == nil {
			break
		}
		if err := host.Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("the node did not become ready: %w", err)
		}
	}
	if !n.identity.Ready {
		n.identity.Ready = true
		if err := writeIdentity(n.host, n.opts.Dir, n.identity); err != nil {
			return err
		}
	}
	if n.opts.Settings != (Settings{}) && n.opts.Settings != n.Settings() {
		_, err := propose[none](ctx, n, kindPutSettings, n.opts.Settings, nil)
		return err
	}
	return nil
}

// first brings an entry through the log, after all that was in it. It does not
// outlast ctx or the node's failure: rows that have failed answer nobody.
func (n *Node) first(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- n.raft.Apply(appendEntryHeader(nil, n.Now()), n.opts.ApplyTimeout).Error() }()
	select {
	case err := <-done:
		return err
	case <-n.failing:
		return n.Failed()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// snapshotLoop takes a snapshot whenever enough log has come together, which
// lets the log be cut and bounds the time of the next start.
func (n *Node) snapshotLoop() {
	defer n.wg.Done()
	for {
		select {
		case <-n.stop:
			return
		case <-n.fsm.due:
			n.snapshot()
		}
	}
}

// CutLog asks for a snapshot now: the log gives back what the rows hold. It does
// not wait for it.
func (n *Node) CutLog() {
	select {
	case n.fsm.due <- struct{}{}:
	default:
	}
}

func (n *Node) snapshot() {
	began := time.Now()
	err := n.raft.Snapshot().Error()
	switch {
	case err == nil:
		n.metrics.snapshots.Inc()
		n.log.Debug("snapshot taken", "took", time.Since(began))
	case errors.Is(err, raft.ErrNothingNewToSnapshot), errors.Is(err, raft.ErrRaftShutdown):
	default:
		n.metrics.snapshotErrors.Inc()
		n.log.Error("snapshot failed: the log keeps growing until one succeeds", "error", err)
	}
}

// Close stops taking part. Rows in memory are flushed first, so that the next
// start has nothing to replay; a crash here costs only that. A second Close waits
// for the first and answers as that did.
func (n *Node) Close() error {
	n.closing.Do(func() {
		close(n.stop)
		n.closeErr = n.unlessFailed(func() error { return n.unlessShort(n.shutdown) })
	})
	return n.closeErr
}

// closePatience is how long the parts of a failed node may take to end.
const closePatience = 5 * time.Second

// unlessFailed runs end, or open. After an error that pebble cannot undo (see stateLogger)
// its locks are held for ever, and whoever needs them waits as long; so once the
// node has failed what does not end soon is left behind: the process must stop.
func (n *Node) unlessFailed(end func() error) error {
	done := make(chan error, 1)
	go func() { done <- end() }()
	select {
	case err := <-done:
		return err
	case <-n.failing:
	}
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("the data directory could not be opened, or closed, after a failure: %w", n.Failed())
	}
}

// unlessShort runs end. On a full disk the rows cannot be flushed, and pebble tries
// for as long as that lasts. Nothing is lost where it is left behind: the next start
// applies the log again.
func (n *Node) unlessShort(end func() error) error {
	done := make(chan error, 1)
	go func() { done <- end() }()
	again := time.NewTicker(errorPause)
	defer again.Stop()
	for short := time.Duration(0); ; {
		select {
		case err := <-done:
			return err
		case <-again.C:
		}
		why := n.Short()
		if short += errorPause; why == nil {
			short = 0
		}
		if short >= closePatience {
			return fmt.Errorf("the rows were not flushed before the end, and the next start takes longer: %w", why)
		}
	}
}

func (n *Node) shutdown() error {
	n.wg.Wait()
	n.proposer.close()
	if n.Failed() == nil {
		n.snapshot()
	}
	err := n.raft.Shutdown().Error()
	return errors.Join(err, n.closeStores())
}

func (n *Node) closeStores() error {
	var errs []error
	if n.wal != nil {
		errs = append(errs, n.wal.Close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	if n.mark != nil {
		errs = append(errs, n.mark.Close())
	}
	return errors.Join(errs...)
}

// fail notes that the node must stop, and tells Options.Fatal the first time.
func (n *Node) fail(err error) {
	n.failMu.Lock()
	first := n.failed == nil
	if kv.IsDamage(err) {
		err = fmt.Errorf("%w; %s", err, wayOut(n.opts.Dir))
	}
	if first {
		n.failed = err
		close(n.failing)
	}
	n.failMu.Unlock()
	if first {
		n.log.Error("the node must stop: its disk or its log cannot be trusted", "error", err)
		if n.opts.Fatal != nil {
			n.opts.Fatal(err)
		}
	}
}

// Failed is why the node must stop, or nil.
func (n *Node) Failed() error {
	n.failMu.Lock()
	defer n.failMu.Unlock()
	return n.failed
}

// Identity says whose data directory this is.
func (n *Node) Identity() Identity { return n.identity }

// IsLeader reports whether this node orders commands now.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Now is the time by which this node decides: whatever is compared with a time in
// a row is compared with this, never with time.Now. It never goes back and is
// never before the time of an entry that was applied here.
func (n *Node) Now() mail.Time { return n.clock.now() }

// Settings are those in force.
func (n *Node) Settings() Settings { return n.fsm.settings() }

// Spool reads the spool as applied here.
func (n *Node) Spool() spool.Reader { return spool.Reader{R: n.db} }

// Directory reads the directory as applied here.
func (n *Node) Directory() directory.Reader {
	return directory.Reader{R: n.db, Provider: n.opts.Provider}
}

// DirectoryVersion changes after each change of an account or domain is seen by
// Directory, and before whoever asked for it hears that it is done. What was read
// after a version was, is not older than that version.
func (n *Node) DirectoryVersion() uint64 { return n.fsm.directory.Load() }

// Quota reads usage as applied here.
func (n *Node) Quota() quota.Reader { return quota.Reader{R: n.db} }

// Rows gives all rows, for tests and verification.
func (n *Node) Rows() *kv.Store { return n.db }
