package cluster

import (
	"log/slog"
	"sync"
	"time"

	"bsmtpd/mail"
	"bsmtpd/metric"

	"github.com/prometheus/client_golang/prometheus"
)

// How the node's time follows the wall clock; see doc/decisions/012-time.md.
const (
	leapSize  = time.Minute      // more at once is a leap
	leapDoubt = 10 * time.Minute // so long a leap must last until it is believed
	slowdown  = 64               // of each 64 s ahead of the wall clock one is waited out
	aheadSize = time.Minute      // more is told to the operator
	aheadTell = time.Hour        // so often
)

// clock tells the time by which this node decides and acts: that of the wall
// clock where it can be believed, never less than the machine's, and running on
// with the monotonic clock where the wall clock was set back.
//
// Rows carry machine time, which never goes back. While the wall clock alone was
// asked for "now", a clock that had been wrong for a minute and was put right
// left every time in the rows in the future: timers stood still until the wall
// clock came there, claims were over when they were made, and a sweep followed
// the other.
type clock struct {
	wall    func() time.Time
	log     *slog.Logger
	metrics clockMetrics

	mu    sync.Mutex // guards what follows; nothing is waited for
	run   time.Time  // what the clock said last, without a monotonic reading
	at    time.Time  // when that was
	doubt time.Time  // since when the wall clock is a leap ahead of run; zero: it is not
	told  time.Time  // when the operator was last told that run is ahead
}

type clockMetrics struct {
	ahead prometheus.Gauge
	leaps prometheus.Counter
}

func newClockMetrics(r *metric.Registry) clockMetrics {
	return clockMetrics{
		ahead: r.Gauge("clock_ahead_seconds", "How far the spool's time is ahead of this node's wall clock. Above 60 the clock was wrong, or is; below -60 the clock leapt ahead and is not believed yet."),
		leaps: r.Counter("clock_leaps_total", "Times that the wall clock, or an entry of the log, was more than a minute ahead at once."),
	}
}

// newClock begins at the machine's time or the wall clock's, whichever is later:
// how long the node was down nobody knows better.
func newClock(wall func() time.Time, machine mail.Time, log *slog.Logger, m clockMetrics) *clock {
	c := &clock{wall: wall, log: log, metrics: m, at: time.Now()}
	c.run = c.wall().Round(0)
	if t := machine.Std(); t.After(c.run) {
		c.run = t
	}
	return c
}

// now never goes back.
func (c *clock) now() mail.Time {
	c.mu.Lock()
	mono, wall := time.Now(), c.wall().Round(0)
	spent := mono.Sub(c.at)
	c.at = mono
	c.run = c.run.Add(spent)
	ahead := c.run.Sub(wall)
	var tell func()
	switch {
	case ahead >= 0:
		c.doubt = time.Time{}
		c.run = c.run.Add(-min(ahead, spent/slowdown))
		if ahead > aheadSize && (c.told.IsZero() || mono.Sub(c.told) >= aheadTell) {
			c.told = mono
			tell = func() { c.tellAhead(ahead) }
		}
	case -ahead <= leapSize:
		c.doubt = time.Time{}
		c.run = wall
	case c.doubt.IsZero():
		c.doubt = mono
		tell = func() { c.tellLeap(-ahead, "the wall clock leapt ahead; it is not followed unless it stays there") }
	case mono.Sub(c.doubt) >= leapDoubt:
		c.doubt = time.Time{}
		c.run = wall
		tell = func() { c.tellLeap(-ahead, "the wall clock leapt ahead and stayed there; it is followed") }
	}
	now := mail.At(c.run)
	c.mu.Unlock()
	c.metrics.ahead.Set(ahead.Seconds())
	if tell != nil {
		tell()
	}
	return now
}

// applied hears the machine's time after an entry. Where another node's clock, or
// the log, is ahead, this clock takes that over: rows say so.
func (c *clock) applied(machine mail.Time) {
	before := c.now()
	if machine <= before {
		return
	}
	c.mu.Lock()
	if t := machine.Std(); t.After(c.run) {
		c.run, c.doubt = t, time.Time{}
	}
	c.mu.Unlock()
	if leap := machine.Sub(before); leap > leapSize {
		c.tellLeap(leap, "an entry of the log carries a time far ahead of this node's")
	}
}

func (c *clock) tellLeap(by time.Duration, what string) {
	c.metrics.leaps.Inc()
	c.log.Warn(what, "by", by)
}

func (c *clock) tellAhead(by time.Duration) {
	c.log.Warn("the spool's time is ahead of the wall clock, which must have been wrong; times in listings are ahead as much, waiting times are right", "by", by)
}
