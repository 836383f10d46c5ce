package delivery

import (
	"sync"

	"bsmtpd/spool"
)

// wakes collects hints from the apply path until the pusher takes them. Adding
// never waits for anything but the short lock; past the bound the hint becomes
// "read the rows", for rows are the truth.
type wakes struct {
	bound int
	ready chan struct{}

	mu       sync.Mutex // guards what follows
	order    []wakeup
	place    map[spool.QueueName]int
	stops    []spool.QueueName
	overflow bool
}

type wakeup struct {
	queue spool.QueueName
	cause spool.Cause
}

func newWakes(bound int) *wakes {
	return &wakes{bound: bound, ready: make(chan struct{}, 1), place: map[spool.QueueName]int{}}
}

func (w *wakes) add(q spool.QueueName, c spool.Cause) {
	w.mu.Lock()
	if i, ok := w.place[q]; ok {
		w.order[i].cause = moreUrgent(w.order[i].cause, c)
	} else if len(w.order) < w.bound {
		w.place[q] = len(w.order)
		w.order = append(w.order, wakeup{q, c})
	} else {
		w.overflow = true
	}
	w.mu.Unlock()
	w.poke()
}

func (w *wakes) addStop(q spool.QueueName) {
	w.mu.Lock()
	if len(w.stops) < w.bound {
		w.stops = append(w.stops, q)
	}
	w.mu.Unlock()
	w.poke()
}

func (w *wakes) poke() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *wakes) take() (order []wakeup, stops []spool.QueueName, overflow bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	order, stops, overflow = w.order, w.stops, w.overflow
	w.order, w.stops, w.overflow = nil, nil, false
	if len(order) > 0 {
		w.place = make(map[spool.QueueName]int)
	}
	return order, stops, overflow
}
