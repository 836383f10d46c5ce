// Package delivery pushes what is due: in order, fairly, and never too much to one
// place.
//
// The planner (plan) says which queue is next, a session pushes one queue, a pipe
// sends over one connection, and the pusher is the loop around them.
package delivery

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

const (
	scanPage   = 1000            // due rows that are read at once
	scanFresh  = 10_000          // new ones after which a scan is long enough
	scanEvery  = time.Minute     // between two scans when nothing calls for one
	claimAgain = 5 * time.Second // after a claim that was not committed
	lowWater   = 500             // waiting queues below which more rows are read
	wakeBound  = 200_000         // hints that are kept between two turns of the loop
)

// Deps are what a Pusher works with.
type Deps struct {
	Host      host.Host
	Self      Self
	Spool     Spool
	Rows      Rows
	Directory Directory
	Settings  func() spool.Settings
	Now       func() mail.Time // what times in rows are compared with; nil: the system's clock
	Log       *slog.Logger
	MailLog   *metric.MailLog
	Metrics   *metric.Registry
}

// Pusher is the part of a node that pushes mail.
type Pusher struct {
	Deps
	metrics *metrics
	chance  *chance
	turns   turns
	limiter *rate.Limiter
	wakes   *wakes
	paused  atomic.Bool
	crowded atomic.Bool // queues that are due wait for a place
	conf    atomic.Pointer[setup]

	// What follows belongs to the loop. Waiting is counted on the monotonic
	// clock, and only what is compared with rows by Deps.Now: that may leap.
	plan     *plan
	sessions map[spool.QueueName]*session
	ends     chan ended
	scanAt   time.Time
	more     bool // the last scan left due rows behind
	wg       sync.WaitGroup
}

// setup is a Config with what is made of it.
type setup struct {
	Config
	sources *sources
}

// New makes a Pusher. cfg must have passed Check.
func New(cfg Config, d Deps) *Pusher {
	if d.Now == nil {
		d.Now = func() mail.Time { return mail.At(time.Now()) }
	}
	p := &Pusher{Deps: d, metrics: newMetrics(d.Metrics), chance: &chance{rng: d.Host.Rand("delivery")},
		limiter: rate.NewLimiter(rate.Inf, limitBurst), wakes: newWakes(wakeBound),
		sessions: map[spool.QueueName]*session{}, ends: make(chan ended, 64)}
	p.SetConfig(cfg)
	p.plan = newPlan(cfg.limits())
	return p
}

// SetConfig changes the settings. Sessions at work keep theirs.
func (p *Pusher) SetConfig(cfg Config) {
	src, err := parseSources(cfg.SourceAddresses)
	if err != nil {
		src = &sources{} // Check has refused it
	}
	limit := rate.Inf
	if cfg.Bandwidth > 0 {
		limit = rate.Limit(cfg.Bandwidth)
	}
	p.limiter.SetLimit(limit)
	p.conf.Store(&setup{cfg, src})
	p.wakes.poke()
}

// Sources gives the addresses that pushes leave from; none: the system chooses.
func (p *Pusher) Sources() []netip.Addr { return p.conf.Load().sources.all() }

// Wake says that a queue is due, or has new mail. It never blocks.
func (p *Pusher) Wake(queue spool.QueueName, cause spool.Cause) {
	if !queue.IsMailbox() {
		p.wakes.add(queue, cause)
	}
}

// Stop asks the session at work on a queue, if there is one, to end after the
// messages in flight; the queue spool.ScopeAll means every session. It never
// blocks.
func (p *Pusher) Stop(queue spool.QueueName) { p.wakes.addStop(queue) }

// Pause stops or resumes the beginning of sessions, for a spool that cannot record
// what they do. Sessions at work end after the messages in flight.
func (p *Pusher) Pause(on bool) {
	if p.paused.Swap(on) != on {
		p.wakes.poke()
	}
}

// Run pushes until ctx ends, and then lets the messages in flight end for at most
// Config.StopTimeout.
func (p *Pusher) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p.inherit(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		p.turn(hard)
		timer.Reset(time.Until(p.nextTurn()))
		select {
		case <-ctx.Done():
		case <-p.wakes.ready:
		case <-timer.C:
		case e := <-p.ends:
			p.ended(e)
		}
	}
	p.shutdown(cancel)
	return nil
}

// turn does what is to be done now.
func (p *Pusher) turn(hard context.Context) {
	now := time.Now()
	for more := true; more; {
		select {
		case e := <-p.ends:
			p.ended(e)
		default:
			more = false
		}
	}
	p.plan.SetLimits(p.conf.Load().limits())
	p.takeWakes(now)
	if p.paused.Load() {
		for _, s := range p.sessions {
			s.halt()
		}
	} else {
		if !now.Before(p.scanAt) || p.more && len(p.plan.waiting) < lowWater {
			p.scan(now)
		}
		for _, it := range p.plan.Next(p.Now()) {
			p.start(hard, it)
		}
	}
	p.crowded.Store(p.plan.Crowded())
	p.metrics.waiting.Set(float64(len(p.plan.waiting)))
	p.metrics.running.Set(float64(len(p.sessions)))
}

func (p *Pusher) nextTurn() time.Time {
	if p.paused.Load() {
		return time.Now().Add(scanEvery)
	}
	at := p.scanAt
	if w := p.plan.Wait(p.Now()); w != 0 {
		at = earlier(at, p.moment(w))
	}
	return at
}

// moment is when it will be a time of the rows.
func (p *Pusher) moment(t mail.Time) time.Time { return time.Now().Add(t.Sub(p.Now())) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (p *Pusher) takeWakes(std time.Time) {
	now := p.Now()
	order, stops, overflow := p.wakes.take()
	for _, w := range order {
		if s := p.sessions[w.queue]; s != nil {
			s.poke()
			if w.cause < spool.CauseNew {
				s.watches.hurry(signOfLife)
			}
		}
		p.add(now, item{Queue: w.queue, Cause: w.cause, At: now})
	}
	for _, q := range stops {
		if q == spool.QueueName(spool.ScopeAll) { // all delivery is suspended
			for _, s := range p.sessions {
				s.halt()
			}
		} else if s := p.sessions[q]; s != nil {
			s.halt()
		}
	}
	if overflow {
		p.scanAt = std
	}
}

// add puts a queue on the planner's list; false: the list is full.
func (p *Pusher) add(now mail.Time, it item) bool {
	if !p.plan.Known(it.Queue) {
		it.Network = networkOf(p.Directory, it.Queue)
	}
	if p.plan.Add(now, it) {
		return true
	}
	p.metrics.overflow.Inc()
	p.more = true
	return false
}

// scan reads due rows: the truth behind all hints. Rows of queues that wait or run
// already are passed over, so those behind them are reached.
func (p *Pusher) scan(std time.Time) {
	now := p.Now()
	p.more = false
	p.scanAt = std.Add(scanEvery)
	fresh := 0
	page, err := p.Rows.Due(now, scanPage)
	for err == nil && len(page) > 0 {
		for _, d := range page {
			if p.plan.Known(d.Queue) {
				continue
			}
			if fresh++; !p.add(now, item{Queue: d.Queue, Cause: d.Cause, At: d.At}) {
				return // p.more is set: the rest has to wait for room on the list
			}
		}
		if len(page) < scanPage {
			break
		}
		if fresh >= scanFresh {
			p.more = true
			return
		}
		page, err = p.Rows.DueAfter(page[len(page)-1], now, scanPage)
	}
	if err == nil {
		// The next row that comes due is the time of the next scan.
		page, err = p.Rows.DueAfter(spool.Due{At: now, Queue: lastQueue}, now.Add(scanEvery), 1)
		if err == nil && len(page) > 0 {
			p.scanAt = std.Add(page[0].At.Sub(now))
		}
	}
	if err != nil {
		p.Log.Error("the schedule cannot be read", "error", err)
		p.scanAt = std.Add(claimAgain)
	}
}

// lastQueue sorts after every queue's name.
const lastQueue = spool.QueueName("\xff")

// start begins the session of a queue.
func (p *Pusher) start(hard context.Context, it item) {
	set := p.conf.Load()
	s := &session{rows: p.Rows, spool: p.Spool, dir: p.Directory, settings: p.Settings(), now: p.Now, log: p.Log, mailLog: p.MailLog,
		metrics: p.metrics, queue: it.Queue, cause: it.Cause, stop: make(chan struct{}), wake: make(chan struct{}, 1),
		crowded: &p.crowded}
	s.ctx, s.cancel = context.WithCancelCause(hard)
	s.dialling, s.hangUp = context.WithCancel(s.ctx)
	s.client = client{host: p.Host, self: &p.Self, cfg: &set.Config, sources: set.sources, turn: p.turns.next(), chance: p.chance,
		life: s.ctx, connected: s.firstByte, watches: newWatches()}
	if set.Bandwidth > 0 {
		s.limiter = p.limiter
	}
	p.sessions[it.Queue] = s
	p.wg.Go(func() {
		e := ended{queue: it.Queue, cause: it.Cause, retry: true}
		defer func() {
			if r := recover(); r != nil {
				s.panicked(r)
			}
			s.hangUp()
			p.ends <- e
		}()
		e = s.run(hard)
	})
}

// ended takes the end of a session. What was added while it ran is looked up in
// the row: the session may have seen to it.
func (p *Pusher) ended(e ended) {
	delete(p.sessions, e.queue)
	again := p.plan.Done(e.queue)
	now := p.Now()
	if e.retry {
		p.plan.Add(now, item{Queue: e.queue, Cause: moreUrgent(again, e.cause), At: now.Add(claimAgain),
			Network: networkOf(p.Directory, e.queue)})
		return
	}
	if e.next != 0 {
		p.scanAt = earlier(p.scanAt, p.moment(e.next))
	}
	if again == spool.CauseNone {
		return
	}
	row, ok, err := p.Rows.Queue(e.queue)
	if err == nil && ok && row.Next != 0 && row.Next <= now {
		p.add(now, item{Queue: e.queue, Cause: moreUrgent(row.Cause, again), At: row.Next})
	}
}

// shutdown ends all sessions, in peace or at once.
func (p *Pusher) shutdown(cancel context.CancelFunc) {
	for _, s := range p.sessions {
		s.halt()
	}
	grace := time.AfterFunc(p.conf.Load().StopTimeout, cancel)
	defer grace.Stop()
	for len(p.sessions) > 0 {
		p.ended(<-p.ends)
	}
	p.wg.Wait()
}
