package simtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts the faults that a world has had.
type tally struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

// fault counts one. Any goroutine may call it.
func (w *World) fault(format string, args ...any) {
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	if w.faults.n == nil {
		w.faults.n = map[string]int{}
	}
	w.faults.n[fmt.Sprintf(format, args...)]++
}

// Coverage is the faults with their numbers, in one line that scripts/sim.sh adds
// up over many worlds.
func (w *World) Coverage() string {
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(w.faults.n)) {
		out = append(out, fmt.Sprintf("%s=%d", name, w.faults.n[name]))
	}
	return "coverage: " + strings.Join(out, "; ")
}

// wall is the node's wall clock.
func (w *World) wall() time.Time { return time.Now().Add(time.Duration(w.wrong.Load())) }

// ClockIsWrong lets the node's wall clock be ahead of the world's time, or behind.
func (w *World) ClockIsWrong(by time.Duration) {
	w.Note("the node's clock is wrong by %s", by)
	w.wrong.Store(int64(by))
	w.leaps = append(w.leaps, time.Now())
}

// leapt reports whether the node's time may have leapt between two moments: its
// clock was set, or had been and was believed later.
func (w *World) leapt(from, to time.Time) bool {
	return slices.ContainsFunc(w.leaps, func(at time.Time) bool {
		return at.Before(to) && at.Add(leapDoubt).After(from)
	})
}

// leapDoubt is longer than a node doubts a wall clock that has leapt; a start
// believes it at once.
const leapDoubt = 30 * time.Hour

// down reports whether there is no node at work: none was started, its power
// failed, or it has ended by itself.
func (w *World) down() bool {
	if w.life == nil || w.crashed() {
		return true
	}
	select {
	case <-w.life.ended:
		return true
	default:
		return false
	}
}

// BreakAfter lets the n-th change of the disk from now fail, and all after it,
// with an error such as EIO. What the node does then is its own affair, until its
// power is cut.
func (w *World) BreakAfter(n int, err error) {
	d := w.life.disk
	d.failAfter(int64(n), func() {
		d.since.Store(time.Now().UnixNano())
		d.broken.Store(&err)
	})
}

// unsure is since when what a life did may not be recorded, seen from the moment at
// which its power failed.
func (l *life) unsure() time.Time {
	since := l.at.Add(-afterwards)
	if at := l.disk.since.Load(); at != 0 && time.Unix(0, at).Add(-afterwards).Before(since) {
		since = time.Unix(0, at).Add(-afterwards)
	}
	return since
}
