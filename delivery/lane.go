package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// lane sends a feed's jobs over one connection at a time.
type lane struct {
	s *session
	f *feed
	t target

	noChunking bool      // the server does not keep its promise of CHUNKING
	stands     func()    // is told when the first connection stands
	first      sync.Once // for stands
}

// lanes sends everything the feed gives. The first lane decides about the route;
// further ones join it when it has a connection.
func (s *session) lanes(f *feed) {
	first, ok := <-f.out
	if !ok {
		return
	}
	t, ref := s.target(f.p)
	if ref != nil {
		s.refused(f, ref, []*job{first})
		return
	}
	var wg sync.WaitGroup
	l := &lane{s: s, f: f, t: t, stands: func() {
		if s.row.Messages < 2 {
			return
		}
		for range s.cfg.ConnectionsPerAccount - 1 {
			wg.Go(func() {
				defer s.guard()
				(&lane{s: s, f: f, t: t}).join()
			})
		}
	}}
	l.run(nil, []*job{first})
	wg.Wait()
}

func (s *session) target(p *pass) (target, *refusal) {
	if s.queue.IsOut() {
		return s.outTarget(s.dialling, s.queue.Domain())
	}
	return routeTarget(s.queue.Login(), p.route)
}

// join is run for a further lane: it takes no job before its connection stands.
func (l *lane) join() {
	c, ref := l.s.connect(l.s.dialling, l.t)
	if ref != nil {
		return
	}
	j, ok := <-l.f.out
	if !ok {
		c.close()
		return
	}
	l.run(c, []*job{j})
}

// run sends redo and then what the feed gives, over c or a new connection. When
// a server ends a connection after a number of messages, another one is made:
// each must bring at least one answer, so this ends.
func (l *lane) run(c *conn, redo []*job) {
	s := l.s
	for {
		if len(redo) == 0 {
			j, ok := <-l.f.out
			if !ok {
				return
			}
			if redo = []*job{j}; s.halted() {
				s.unanswered(j)
				return
			}
		}
		if c == nil {
			var ref *refusal
			if c, ref = s.connect(s.dialling, l.t); ref != nil {
				s.refused(l.f, ref, redo)
				return
			}
		}
		s.connectedTo(c)
		s.startClock()
		l.f.flows.Store(true)
		if l.stands != nil {
			l.first.Do(l.stands)
		}
		var again bool
		if redo, again = l.push(c, redo); !again {
			return
		}
		c = nil
	}
}

// push sends over one connection. again: make another one for the jobs that are
// left.
func (l *lane) push(c *conn, jobs []*job) (rest []*job, again bool) {
	s := l.s
	if l.noChunking {
		c.ext.chunking = false
	}
	before := s.answers()
	p := &pipe{c: c, ctx: s.ctx, done: s.answer, local: s.local, stopping: s.halted,
		skip:      func(j *job) { l.f.taken(j); s.inflight.Add(-1) },
		body:      func(j *job) (bodyReader, error) { l.f.taken(j); return openBody(s.rows, j) },
		sentBytes: func(n int64) { s.metrics.bytes.Add(float64(n)) }}
	rest, err := p.push(jobs, l.f.out)
	if n := p.led.possible(); n > 0 {
		s.metrics.possible.Add(float64(n))
	}
	var bug *panicked
	if errors.As(err, &bug) {
		s.panicked(bug.value)
	}
	if !s.halted() {
		progress := s.answers() > before
		var bye *hangup
		var chunk *noChunking
		switch {
		case err != nil && len(rest) == 0 && progress:
			return nil, true
		case errors.As(err, &bye) && progress:
			return rest, true
		case errors.As(err, &chunk) && !l.noChunking:
			l.noChunking = true
			return rest, true
		}
	}
	if isLoss(err) && (s.ctx.Err() == nil || errors.Is(context.Cause(s.ctx), errTooLong)) {
		l.lost(c, p, err)
		rest = p.led.redo
		if n := len(p.led.order); n > 1 {
			rest = append(p.led.order[1:n:n], rest...)
		}
	}
	for _, j := range rest {
		s.unanswered(j)
	}
	if err != nil {
		l.f.cancel()
	}
	return nil, false
}

// lost notes a broken connection. The message that was being answered for is
// reported as deferred, so that its row says what happened; those after it were
// not tried as far as anybody can know.
func (l *lane) lost(c *conn, p *pipe, err error) {
	s := l.s
	words := printable("connection lost: "+err.Error(), spool.MaxWordsBytes)
	var bye *hangup
	if errors.As(err, &bye) {
		words = bye.reply.String()
	}
	s.note(func(n *notes) {
		n.lost, n.words, n.bad = true, printable(words, spool.MaxWordsBytes), true
		n.remote, n.banner = c.remote.String(), c.banner
	})
	if len(p.led.order) > 0 {
		j := p.led.order[0]
		s.result(j, j.all(spool.Deferred, mail.Reply{Status: mail.Status{4, 4, 2}, Text: printable(words, spool.MaxWordsBytes)}), c.host)
		s.inflight.Add(-1)
	}
}

// connectedTo notes a connection.
func (s *session) connectedTo(c *conn) {
	s.note(func(n *notes) {
		if !n.failed && !n.lost {
			n.remote, n.banner = c.remote.String(), c.banner
		}
	})
}

// firstByte is told of every connection that stands.
func (s *session) firstByte() {
	s.metrics.connects.Inc()
	s.first.Do(func() {
		if s.cause == spool.CauseLogin && s.row.LastLogin != 0 {
			s.metrics.firstByte.Observe(max(0, time.Since(s.row.LastLogin.Std()).Seconds()))
		}
	})
}

func (s *session) answers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes.answered
}

// refused ends a pass whose servers cannot be used. A final refusal is the answer
// to all its mail; otherwise the mail stays.
func (s *session) refused(f *feed, ref *refusal, jobs []*job) {
	if s.halted() && !ref.final { // we ended it ourselves
		for _, j := range jobs {
			s.unanswered(j)
		}
		f.cancel()
		return
	}
	s.metrics.refused.Inc()
	f.p.failed = !ref.final
	s.note(func(n *notes) {
		n.remote, n.banner, n.bad = ref.remote, ref.banner, true
		n.words = printable(ref.Error(), spool.MaxWordsBytes)
		n.failed = n.failed || !ref.final
	})
	if !ref.final {
		for _, j := range jobs {
			s.unanswered(j)
		}
		f.cancel()
		return
	}
	for _, j := range jobs {
		s.answerAll(j, ref.reply)
	}
	for j := range f.out {
		s.answerAll(j, ref.reply)
	}
}

func (s *session) answerAll(j *job, reply mail.Reply) {
	s.local(j, j.all(fateOf(reply), reply))
	s.inflight.Add(-1)
}

// answer takes a job that the server answered.
func (s *session) answer(j *job, c *conn) {
	s.result(j, j.fates(c.ext.dsn), c.host)
	s.inflight.Add(-1)
}

// local takes results that we decided ourselves.
func (s *session) local(j *job, to []spool.RecipientResult) { s.result(j, to, "") }

// result logs, counts and reports what became of some recipients.
func (s *session) result(j *job, to []spool.RecipientResult, remote string) {
	now := s.now()
	r := spool.Result{ID: j.msg.ID, To: to, Remote: remote}
	sent, words, bad := 0, "", false
	for i := range to {
		rr := &to[i]
		s.metrics.fate(rr.Fate)
		if !bad {
			words = rr.Reply.String()
		}
		switch rr.Fate {
		case spool.Sent:
			sent++
			s.mailLog.Sent(j.msg.ID, string(s.queue), rr.Address, remote, rr.Reply, now.Sub(j.msg.Arrived))
		case spool.Deferred:
			bad = true
			r.RetryAt = s.retryAt(&j.msg, now)
			s.mailLog.Deferred(j.msg.ID, string(s.queue), rr.Address, remote, rr.Reply, r.RetryAt.Std())
		case spool.Failed:
			bad = true
			s.mailLog.Failed(j.msg.ID, string(s.queue), rr.Address, remote, rr.Reply)
		}
	}
	s.note(func(n *notes) {
		n.answered++
		n.sent += sent
		if !n.failed && !n.lost && (bad || !n.bad) {
			n.words, n.bad = printable(words, spool.MaxWordsBytes), bad
		}
	})
	if r.RetryAt != 0 {
		s.stays(r.RetryAt)
	}
	s.clerk.report(r)
}

func (s *session) retryAt(m *spool.Message, now mail.Time) mail.Time {
	if s.queue.IsOut() {
		return now.Add(spool.RetryOut(s.settings, m.Attempts+1))
	}
	return spool.RetryAccount(s.settings, now, now)
}

// stays notes that a message stays in the queue until a time.
func (s *session) stays(until mail.Time) {
	s.note(func(n *notes) {
		if n.earliest == 0 || until < n.earliest {
			n.earliest = until
		}
	})
}

// unanswered notes a job that stays as it was.
func (s *session) unanswered(j *job) {
	s.inflight.Add(-1)
	s.note(func(n *notes) {
		if n.left == 0 || j.msg.ID < n.left {
			n.left = j.msg.ID
		}
	})
}

// String is for logs.
func (t target) String() string { return fmt.Sprintf("%s port %d", t.text, t.port) }
