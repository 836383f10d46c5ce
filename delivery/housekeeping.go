package delivery

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

const (
	sweepLook   = time.Minute      // how often it is asked whether a sweep is due
	repairEvery = 5 * time.Minute  // the watchdog between sweeps (B24)
	expireEvery = 30 * time.Second // and what the passing of time asks for
	sweepLimit  = spool.MaxItems   // queues in one command
	expireLimit = 200              // rows in one command
	keepTimeout = 30 * time.Second // of one command
)

// Upkeep takes the housekeeper's commands.
type Upkeep interface {
	Sweep(ctx context.Context, c spool.Sweep) (spool.Swept, error)
	Expire(ctx context.Context, c spool.Expire) (spool.Expired, error)
}

// UpkeepRows are what the housekeeper reads.
type UpkeepRows interface {
	LastSweep() (mail.Time, error)
	Expirable(now mail.Time) (bool, error)
}

var _ UpkeepRows = spool.Reader{}

// Housekeeper proposes what time asks for: the sweep every four hours (B4), the
// watchdog that repairs queues without a next event (B24), and the end of what has
// a life. Only one node of a cluster does it, see Active.
type Housekeeper struct {
	upkeep   Upkeep
	rows     UpkeepRows
	settings func() spool.Settings
	now      func() mail.Time
	log      *slog.Logger
	metrics  *metrics
	active   atomic.Bool
}

// NewHousekeeper makes the housekeeper that belongs to a Pusher; they share their
// metrics.
func (p *Pusher) NewHousekeeper(u Upkeep, rows UpkeepRows) *Housekeeper {
	h := &Housekeeper{upkeep: u, rows: rows, settings: p.Settings, now: p.Now, log: p.Log, metrics: p.metrics}
	h.active.Store(true)
	return h
}

// Active says whether this node is the one that keeps house. At first it is.
func (h *Housekeeper) Active(on bool) { h.active.Store(on) }

// Run keeps house until ctx ends. A failed command is tried again at its next
// turn.
func (h *Housekeeper) Run(ctx context.Context) error {
	now := time.Now()
	// A node that starts looks at once for queues without a next event.
	sweepAt, repairAt, expireAt := now, now, now
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now = time.Now()
		if !now.Before(expireAt) {
			h.expire(ctx)
			expireAt = now.Add(expireEvery)
		}
		if !now.Before(sweepAt) {
			h.sweepIfDue(ctx)
			sweepAt = now.Add(sweepLook)
		}
		if !now.Before(repairAt) {
			h.sweep(ctx, true)
			repairAt = now.Add(repairEvery)
		}
		next := expireAt
		for _, at := range []time.Time{sweepAt, repairAt} {
			if at.Before(next) {
				next = at
			}
		}
		t.Reset(time.Until(next))
	}
}

func (h *Housekeeper) sweepIfDue(ctx context.Context) {
	last, err := h.rows.LastSweep()
	if err != nil {
		h.log.Error("the time of the last sweep cannot be read; sweeping now", "error", err)
		last = 0
	}
	// A clock that was set back must not put the sweep off for ever.
	at := h.now()
	if at >= last.Add(h.settings().SweepEvery) || last > at.Add(h.settings().SweepEvery) {
		h.sweep(ctx, false)
	}
}

// sweep goes over all queues in stretches.
func (h *Housekeeper) sweep(ctx context.Context, repairOnly bool) {
	after, due, repaired := spool.QueueName(""), 0, 0
	for ctx.Err() == nil && h.active.Load() {
		cctx, cancel := context.WithTimeout(ctx, keepTimeout)
		got, err := h.upkeep.Sweep(cctx, spool.Sweep{After: after, Limit: sweepLimit, RepairOnly: repairOnly})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				h.log.Warn("a sweep was broken off; the next one begins anew", "after", after, "error", err)
			}
			return
		}
		due += got.Due
		repaired += got.Repaired
		h.metrics.swept.Add(float64(got.Due))
		h.metrics.repaired.Add(float64(got.Repaired))
		if after = got.Last; after == "" {
			h.swept(repairOnly, due, repaired)
			return
		}
	}
}

func (h *Housekeeper) swept(repairOnly bool, due, repaired int) {
	if !repairOnly {
		h.metrics.sweeps.Inc()
		h.log.Info("sweep", "due", due, "repaired", repaired)
	}
	if repaired > 0 {
		h.log.Error("queues with mail had no next event and were repaired; please report this", "queues", repaired)
	}
}

// expire ends what is past its life, until nothing is left that is. An idle node
// writes nothing to its log for it.
func (h *Housekeeper) expire(ctx context.Context) {
	if due, err := h.rows.Expirable(h.now()); err == nil && !due {
		return
	}
	for ctx.Err() == nil && h.active.Load() {
		cctx, cancel := context.WithTimeout(ctx, keepTimeout)
		got, err := h.upkeep.Expire(cctx, spool.Expire{Limit: expireLimit})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				h.log.Warn("what is past its life could not be ended now", "error", err)
			}
			return
		}
		for kind, n := range map[string]int{"messages": got.Messages, "bodies": got.Bodies, "trash": got.Trash, "holds": got.Holds} {
			h.metrics.expired.WithLabelValues(kind).Add(float64(n))
		}
		if !got.More {
			return
		}
	}
}
