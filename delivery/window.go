package delivery

import "time"

const (
	windowFirst    = 64 << 10 // bytes: what a line of 2.6 Mbit/s carries in 200 ms
	windowGain     = 1.25     // a round that is so much faster was worth its window
	windowPatience = 8        // rounds until more is tried again
)

// window says how many bytes may be in flight over one connection. What the server
// has read and not answered when the line breaks is sent again, so the window is
// kept as small as the line allows: it begins small, and is doubled as long as that
// makes the answers come faster. Where it does not, the line or the server is the
// bound and more in flight would only wait in some buffer; then it is tried again
// after some rounds, for lines change.
//
// A round is one window of answers, measured after those to what was sent before
// the window was changed. It is pure; the pipe holds a lock around it.
type window struct {
	size, most int64

	held   bool      // it has held the pipe back in this round
	trying bool      // it was doubled before this round
	skip   int64     // bytes to be answered before the round begins
	began  time.Time // of the round; zero: not yet
	got    int64     // bytes answered in it
	best   float64   // bytes per second of the fastest round that was held back
	rounds int       // since it was last changed
}

func newWindow(most int64) window { return window{size: min(windowFirst, most), most: most} }

// full reports whether n bytes of some jobs in flight are enough. Two jobs always
// may be, within the bound: while one is answered for, the next is on its way.
func (w *window) full(jobs int, n int64) bool {
	if jobs == 0 || n < w.size || jobs == 1 && n < w.most {
		return false
	}
	w.held = true
	return true
}

// answered takes the answer to a job of n bytes.
func (w *window) answered(now time.Time, n int64) {
	if w.began.IsZero() {
		if w.skip -= n; w.skip <= 0 {
			w.began = now
		}
		return
	}
	if w.got += n; w.got < w.size {
		return
	}
	rate := float64(w.got) / max(now.Sub(w.began), time.Microsecond).Seconds()
	held, trying := w.held, w.trying
	w.began, w.got, w.held, w.trying = now, 0, false, false
	switch {
	case !held: // it was not the bound
	case rate >= windowGain*w.best:
		w.best = rate
		w.change(min(2*w.size, w.most))
	case trying:
		w.change(w.size / 2)
	default:
		if w.rounds++; w.rounds == windowPatience {
			w.change(min(2*w.size, w.most))
		}
	}
}

// change sets the size for the next round.
func (w *window) change(size int64) {
	w.trying = size > w.size
	w.skip, w.began, w.rounds = w.size, time.Time{}, 0
	w.size = size
}
