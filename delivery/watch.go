package delivery

import (
	"sync/atomic"
	"time"
)

// watch closes a connection on which nothing moves (B24). Progress is a whole
// reply or a piece of a body that the network took; a server that drips single
// bytes makes none. A deadline on each read would not do: while a long body is
// being written no reply is due, and a deadline cannot know how the writer fares.
type watch struct {
	timer *time.Timer
	limit atomic.Int64 // nanoseconds
	fired atomic.Bool
}

func newWatch(limit time.Duration, shut func() error) *watch {
	w := &watch{}
	w.limit.Store(int64(limit))
	w.timer = time.AfterFunc(limit, func() {
		w.fired.Store(true)
		shut()
	})
	return w
}

// kick tells of progress.
func (w *watch) kick() { w.timer.Reset(time.Duration(w.limit.Load())) }

// set changes the limit from now on, and counts as progress.
func (w *watch) set(limit time.Duration) {
	w.limit.Store(int64(limit))
	w.kick()
}

func (w *watch) stop() { w.timer.Stop() }
