package delivery

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// session pushes one queue: it claims the queue, goes through its routes one
// after the other, and reports. For each route a feeder reads the messages in
// order of arrival and hands them to one lane (or several), which sends them.
type session struct {
	client
	rows     Rows
	spool    Spool
	dir      Directory
	settings spool.Settings
	now      func() mail.Time
	log      *slog.Logger
	mailLog  *metric.MailLog
	metrics  *metrics

	queue spool.QueueName
	cause spool.Cause
	row   spool.Queue // as claimed
	began mail.Time
	start time.Time
	id    uint64
	clerk *clerk

	ctx    context.Context // ends connections at once
	cancel context.CancelCauseFunc
	first  sync.Once     // for the first connection
	stop   chan struct{} // closed: begin nothing new
	once   sync.Once

	dialling context.Context // ends the search for a server, when stop is closed
	hangUp   context.CancelFunc

	wake    chan struct{} // new mail
	crowded *atomic.Bool  // others wait for the place; nil: nobody does

	routes   *routes // of an account queue
	passes   []*pass
	inflight atomic.Int64 // jobs handed out and not answered

	mu    sync.Mutex // guards what follows
	notes notes
	soft  *time.Timer // SessionLimit; nil: there was no connection yet
}

// notes are what the session will say about itself.
type notes struct {
	sent     int // recipients
	answered int
	failed   bool // a route could not be used
	lost     bool // a connection broke
	remote   string
	banner   string
	words    string
	bad      bool      // words tell of a failure
	damaged  bool      // rows do not decode
	earliest mail.Time // least RetryAt of what stays
	seen     mail.ID   // greatest
	left     mail.ID   // least that was begun or handed out without an answer; 0: none
}

// ended says how a session went, for the pusher.
type ended struct {
	queue  spool.QueueName
	retry  bool      // the claim could not be asked for
	next   mail.Time // when the queue is next due
	cause  spool.Cause
	missed bool // the end could not be recorded
}

// halt lets the session end after the messages in flight.
func (s *session) halt() { s.once.Do(func() { close(s.stop); s.hangUp() }) }

func (s *session) halted() bool {
	select {
	case <-s.stop:
		return true
	default:
		return s.ctx.Err() != nil || s.clerk != nil && !s.clerk.holds()
	}
}

// poke tells of new mail.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// guard ends the session, and only that, when one of its goroutines panics.
func (s *session) guard() {
	if r := recover(); r != nil {
		s.panicked(r)
	}
}

func (s *session) panicked(r any) {
	s.metrics.panics.Inc()
	s.log.Error("a push session was ended by a bug", "queue", s.queue, "panic", r, "stack", string(debug.Stack()))
	s.note(func(n *notes) { n.failed, n.words, n.bad = true, "internal error", true })
	s.cancel(&panicked{r})
}

func (s *session) note(f func(*notes)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.notes)
}

// run is the whole session. reports is the context of its commands, which outlive
// its connections.
func (s *session) run(reports context.Context) ended {
	end := ended{queue: s.queue, cause: s.cause}
	defer s.cancel(nil)
	s.start, s.began = time.Now(), s.now()
	ctx, cancel := context.WithTimeout(reports, callTimeout)
	res, err := s.spool.Claim(ctx, spool.Claim{Queue: s.queue, Node: s.self.Node, Life: s.cfg.ClaimLife, Cause: s.cause})
	cancel()
	if err != nil {
		s.metrics.claims.WithLabelValues("failed").Inc()
		s.log.Warn("a queue could not be claimed", "queue", s.queue, "error", err)
		end.retry = true
		return end
	}
	s.metrics.claims.WithLabelValues(denialName(res.Denial)).Inc()
	if res.Denial != spool.Granted {
		return end
	}
	s.cause, s.id = res.Cause, res.Session
	s.clerk = &clerk{spool: s.spool, ctx: reports, queue: s.queue, node: s.self.Node, session: s.id, cause: s.cause, cfg: s.cfg, now: s.now,
		metrics: s.metrics, in: make(chan spool.Result, reportBacklog), done: make(chan struct{}), abort: func(err error) { s.cancel(err) }}
	s.clerk.until.Store(int64(res.Until))
	go s.clerk.run()
	s.work()
	close(s.clerk.in)
	<-s.clerk.done
	s.finish(&end)
	return end
}

func (s *session) work() {
	defer s.guard()
	defer s.stopClock()
	hard := time.AfterFunc(s.cfg.SessionLimit+s.cfg.MessageLimit, func() { s.cancel(errTooLong) })
	defer hard.Stop()
	row, _, err := s.rows.Queue(s.queue)
	if err == nil {
		s.row = row
		err = s.firstPass()
	}
	if err != nil {
		s.broken(err)
		return
	}
	for p := s.pending(); p != nil && !s.halted(); p = s.pending() {
		s.pass(p)
	}
}

// startClock lets the session's time begin with its first connection. The search
// for a server has bounds of its own; a session that ended amid it would have
// learned nothing and be followed by the next at once, for ever.
func (s *session) startClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soft == nil {
		s.soft = time.AfterFunc(s.cfg.SessionLimit, s.halt)
	}
}

func (s *session) stopClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soft != nil {
		s.soft.Stop()
	}
}

var errTooLong = errors.New("the session took longer than session_limit and message_limit together")

// broken is an error of our own rows.
func (s *session) broken(err error) {
	s.log.Error("a queue cannot be read", "queue", s.queue, "error", err)
	s.note(func(n *notes) {
		n.failed, n.bad, n.words = true, true, printable("the queue cannot be read: "+err.Error(), spool.MaxWordsBytes)
	})
}

// pass is one route of the session and how far it has come.
type pass struct {
	route   directory.Route // of an account queue
	after   mail.ID         // all messages up to here were handed out
	pending bool
	failed  bool
	cut     bool // the session ended before it had handed out everything
}

// firstPass finds where the first message goes. Other routes are found on the
// way: an account may have thousands of domains, and few of them have mail.
func (s *session) firstPass() error {
	if s.queue.IsOut() {
		s.passes = []*pass{{pending: true}}
		return nil
	}
	r, err := newRoutes(s.dir, s.queue.Login())
	if err != nil {
		return err
	}
	s.routes = r
	var rerr error
	for m := range s.rows.Messages(s.queue, 0, &rerr) {
		for _, to := range m.To {
			if err := s.discover(to.Address.Domain(), m.ID); err != nil {
				return err
			}
		}
		break
	}
	return s.hardError(rerr)
}

// hardError is err unless it is about a single damaged row, which is passed over:
// the others must go out. A row that does not decode is set aside in the end; one in
// a damaged file (kv.Damage) may be whole on another node.
func (s *session) hardError(err error) error {
	if mail.KindOf(err) != mail.Broken {
		return err
	}
	var file interface{ Damaged() }
	if !errors.As(err, &file) {
		s.note(func(n *notes) { n.damaged = true })
	}
	return nil
}

// discover notes that a message has a recipient in a domain.
func (s *session) discover(d mail.Domain, id mail.ID) error {
	route, err := s.routes.of(d)
	if err != nil {
		return err
	}
	waiting := 0
	for _, p := range s.passes {
		if p.pending {
			waiting++
		}
		if p.route == route {
			if !p.pending && !p.failed && id > p.after {
				p.pending, p.after = true, id-1
			}
			return nil
		}
	}
	// One that finds no place is found again: routes come in the order of their
	// first message, and each pass reads everything behind the first of its own.
	// So none starves behind others that are never reached.
	if waiting < maxRoutes && len(s.passes) < maxPasses {
		s.passes = append(s.passes, &pass{route: route, after: id - 1, pending: true})
	}
	return nil
}

func (s *session) pending() *pass {
	i := slices.IndexFunc(s.passes, func(p *pass) bool { return p.pending })
	if i < 0 {
		return nil
	}
	return s.passes[i]
}

// pass pushes what one route has.
func (s *session) pass(p *pass) {
	f := newFeed(s, p)
	defer f.cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(f.out)
		defer s.guard()
		f.run()
	})
	s.lanes(f)
	f.cancel()
	wg.Wait()
	for j := range f.out { // was read ahead, and its turn did not come
		s.unanswered(j)
	}
	p.pending, p.cut = false, !f.finished
}

// outcome is what Finish is to say.
func (s *session) outcome(n *notes) spool.Outcome {
	switch {
	case n.failed:
		return spool.OutcomeFailed
	case n.lost:
		return spool.OutcomeLost
	case n.answered == 0:
		return spool.OutcomeNothing
	}
	return spool.OutcomeDone
}

func (s *session) finish(end *ended) {
	s.mu.Lock()
	n := s.notes
	s.mu.Unlock()
	if n.left != 0 {
		n.seen = min(n.seen, n.left-1)
	}
	for _, p := range s.passes {
		if p.pending || p.cut {
			n.seen = min(n.seen, p.after)
		}
	}
	outcome := s.outcome(&n)
	f := spool.Finish{Queue: s.queue, Session: s.id, Outcome: outcome, Began: s.began, Words: n.words, Remote: n.remote,
		Banner: n.banner, Sent: n.sent, Damaged: n.damaged, EarliestRetry: n.earliest, SeenTo: max(n.seen, 1), Cause: s.cause}
	s.metrics.sessions.WithLabelValues(outcome.String(), s.cause.String()).Inc()
	var done spool.Finished
	var err error
	if !s.clerk.stale.Load() {
		if s.clerk.lost.Load() {
			err = context.Cause(s.ctx)
		} else {
			done, err = s.clerk.finish(f)
		}
	}
	if err != nil {
		end.missed = true
		s.log.Error("the end of a push session could not be recorded; the queue is tried again when its claim ends",
			"queue", s.queue, "error", err)
	}
	end.next = done.Next
	s.mailLog.Attempted(string(s.queue), s.cause.String(), n.remote, outcome.String(), n.sent, n.words, time.Since(s.start), done.Next.Std())
}
