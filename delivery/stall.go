package delivery

import (
	"sync"
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

// signOfLife is how long a connection may be without progress when somebody asks
// for its queue to be tried now: the customer has logged in, so the line that it
// was made over may be gone, or an operator wants to see something. On the slowest
// line one piece of a body takes almost so long. The session then ends, and the
// attempt that was asked for follows (spool.Queue.Again).
const signOfLife = 30 * time.Second

// watches are those of one session's connections.
type watches struct {
	mu  sync.Mutex // guards all
	all map[*watch]bool
}

func newWatches() *watches { return &watches{all: map[*watch]bool{}} }

// add takes a watch in, until leave is called.
func (w *watches) add(one *watch) (leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[one] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, one)
	}
}

// hurry closes the connections on which nothing moves for a while from now.
func (w *watches) hurry(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.timer.Reset(limit)
	}
}
