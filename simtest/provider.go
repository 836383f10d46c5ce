package simtest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/host"
	"bsmtpd/node"
)

// life is one run of the node: from its start until it was stopped or its power
// failed. Goroutines cannot be killed, so after a power failure the old node
// goes on for a while, but on a disk and a network that are nobody's any more.
type life struct {
	number  int
	machine *Machine
	disk    *disk
	node    *node.Node
	began   time.Time
	cancel  context.CancelFunc

	ended chan struct{} // closed when Run has returned
	err   error         // of Run; read it after ended

	dead atomic.Bool
	once sync.Once
	died chan struct{} // closed when the power has failed
	at   time.Time     // when; read it after died
	left *disk         // what is found then
}

// Start starts the node on its disk and waits until it takes mail.
func (w *World) Start() {
	w.t.Helper()
	if w.life != nil {
		w.Fatalf("the node runs already")
	}
	if err := w.boot(); err != nil {
		w.Fatalf("the node does not start: %v", err)
	}
	w.SleepUntil(2*time.Minute, "the node is ready", func() bool {
		return w.crashed() || !slices.Contains(w.life.node.NotReady(), "starting or stopping")
	})
}

// boot starts the node.
func (w *World) boot() error {
	conf := *w.Config
	l := &life{number: len(w.gone) + 1, machine: w.Net.Machine(nodeAddr), disk: w.disk, began: time.Now(),
		ended: make(chan struct{}), died: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	w.Note("the node starts, life %d", l.number)
	if w.fuse > 0 {
		percent := w.sharePercent()
		l.disk.failAfter(w.fuse, func() { w.die(l, percent) })
		w.fuse = 0
	}
	n, err := node.New(node.Options{Config: &conf, Host: w.host(l), Version: "simulated", Still: true, Wall: w.wall,
		Log: slog.New(&pen{j: w.journal, who: fmt.Sprintf("node%d", l.number), dead: &l.dead})})
	if err != nil {
		cancel()
		l.machine.Fail(false)
		if !l.dead.Load() {
			return err
		}
		w.life = l // its power failed while it started
		close(l.ended)
		return nil
	}
	l.node = n
	w.life = l
	go func() {
		defer close(l.ended)
		l.err = n.Run(ctx)
	}()
	return nil
}

func (w *World) host(l *life) host.Host {
	return host.Host{Net: l.machine, DNS: w.DNS, FS: l.disk, Name: func() string { return nodeName },
		Rand: func(name string) *rand.Rand { return w.chance.stream(fmt.Sprintf("node %d %s", l.number, name)) }}
}

// Node is the node that runs.
func (w *World) Node() *node.Node { return w.life.node }

// die is a power failure, now. Any goroutine may call it, even one that is
// writing to the disk: the network goes first, so that nothing is promised any
// more that the disk does not hold.
func (w *World) die(l *life, percent int) {
	l.once.Do(func() {
		rng := w.chance.stream(fmt.Sprintf("crash %d", l.number))
		l.machine.Fail(rng.IntN(2) == 0)
		l.dead.Store(true)
		l.at = time.Now()
		l.left = l.disk.afterCrash(percent, rng)
		l.left.setFree(diskBytes / 2)
		l.cancel()
		close(l.died)
	})
}

// crashed reports whether the node's power has failed.
func (w *World) crashed() bool {
	select {
	case <-w.life.died:
		return true
	default:
		return false
	}
}

// Crash lets the node's power fail now. Of what was not synced to disk, a share
// in percent that is drawn by chance survives.
func (w *World) Crash() {
	w.die(w.life, w.sharePercent())
	w.bury()
}

// CrashAfter lets the power fail at the n-th change of the disk from now, at
// whatever point of its work the node is then; of the next node, if none runs.
// Restart follows.
func (w *World) CrashAfter(n int) {
	if w.life == nil {
		w.fuse = int64(n)
		return
	}
	l, percent := w.life, w.sharePercent()
	l.disk.failAfter(int64(n), func() { w.die(l, percent) })
}

// sharePercent draws how much survives: nothing, everything, or a part.
func (w *World) sharePercent() int {
	rng := w.chance.stream(fmt.Sprintf("share %d", len(w.gone)))
	return []int{0, 100, rng.IntN(100)}[rng.IntN(3)]
}

// bury puts the dead node away; its disk is what the next one finds.
func (w *World) bury() {
	<-w.life.died
	w.Note("the power failed in life %d at %s", w.life.number, day(w.life.at))
	w.fault("the power fails")
	w.disk = w.life.left
	w.gone = append(w.gone, w.life)
	w.life = nil
}

// Restart starts the node again after its power failed, or fails it first.
func (w *World) Restart() {
	w.t.Helper()
	if w.life != nil {
		if !w.crashed() {
			w.die(w.life, w.sharePercent())
		}
		w.bury()
	}
	w.Start()
}

// Stop stops the node as SIGTERM does, and waits until it has ended.
func (w *World) Stop() {
	w.t.Helper()
	w.Note("the node is told to stop")
	l := w.life
	l.cancel()
	<-l.ended
	if l.err != nil {
		w.Errorf("the node ended with: %v", l.err)
	}
	if n := l.machine.Open(); n > 0 {
		w.Errorf("%d connections are open after the node has ended", n)
	}
	l.machine.Fail(false)
	w.gone = append(w.gone, l)
	w.life = nil
}

// DiskFree sets how many bytes are free on the node's disk.
func (w *World) DiskFree(bytes uint64) {
	w.Note("%d bytes are free on the disk", bytes)
	w.life.disk.setFree(bytes)
}
