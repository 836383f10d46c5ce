package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"bsmtpd/spool"
)

const (
	pageMessages  = 64                    // rows in memory at once
	aheadMessages = 16                    // handed out and not taken
	maxPostponed  = 256                   // messages that are kept for the end of a pass
	lostAttempts  = 2                     // after so many lost connections a message goes last
	messagesBytes = 1 << 20               // of a page's rows
	aheadBytes    = 128 << 10             // of bodies that are read while others are being sent
	crowdedLook   = 20 * time.Millisecond // how often a session that lingers looks whether its place is wanted
)

// feed reads one pass's messages in order of arrival and hands them out as jobs.
type feed struct {
	s      *session
	p      *pass
	out    chan *job
	ctx    context.Context
	cancel context.CancelFunc

	// postponed broke the connection again and again. They go last: one message
	// that a server chokes on must not keep all others from arriving.
	postponed []spool.Message

	// flows: a connection stands. Before, bodies are not read: most servers that
	// are tried are offline.
	flows atomic.Bool
	ahead atomic.Int64 // bytes of bodies in out

	finished bool // everything there was has been handed out
}

func newFeed(s *session, p *pass) *feed {
	f := &feed{s: s, p: p, out: make(chan *job, aheadMessages)}
	f.ctx, f.cancel = context.WithCancel(s.ctx)
	return f
}

func (f *feed) run() {
	for {
		page, err := f.page()
		if err != nil {
			f.s.broken(err)
			return
		}
		for i := range page {
			if !f.message(&page[i]) {
				return
			}
		}
		if len(page) > 0 {
			continue
		}
		late := f.postponed
		f.postponed = nil
		for i := range late {
			if !f.hand(&late[i]) {
				return
			}
		}
		if !f.linger() {
			f.finished = true
			return
		}
	}
}

// page reads the next messages. It checks that the queue may still be pushed.
func (f *feed) page() ([]spool.Message, error) {
	now := f.s.now()
	sus, err := f.s.rows.Suspended(f.s.queue, now)
	if err != nil || sus != nil {
		f.s.halt()
		return nil, err
	}
	var page []spool.Message
	size := 0
	var rerr error
	for m := range f.s.rows.Messages(f.s.queue, f.p.after, &rerr) {
		page = append(page, m)
		for _, r := range m.To {
			size += len(r.Address) + len(r.Last.Text) + 200
		}
		if len(page) == pageMessages || size > messagesBytes {
			break
		}
	}
	return page, f.s.hardError(rerr)
}

// message decides about one message; false: hand out no more.
func (f *feed) message(m *spool.Message) bool {
	if f.s.halted() || f.ctx.Err() != nil {
		return false
	}
	now := f.s.now()
	f.s.note(func(n *notes) { n.seen = max(n.seen, m.ID) })
	switch {
	case m.Hold != nil && (m.Hold.Until == 0 || m.Hold.Until > now):
	case m.RetryAt > now && !f.s.cause.Urgent():
		f.s.stays(m.RetryAt)
	case m.Attempts >= lostAttempts && brokeOff(m) && len(f.postponed) < maxPostponed:
		f.postponed = append(f.postponed, *m)
	default:
		return f.hand(m)
	}
	f.p.after = m.ID
	return true
}

// brokeOff reports whether the last try of a message ended with a lost connection:
// words without a reply code.
func brokeOff(m *spool.Message) bool {
	for _, r := range m.To {
		if r.Last.Code == 0 && r.Last.Text != "" {
			return true
		}
	}
	return false
}

// hand gives out a message's recipients on this route, in jobs of at most
// maxPerTransaction. Recipients on other routes are noted.
func (f *feed) hand(m *spool.Message) bool {
	to := m.To
	if f.s.routes != nil {
		to = nil
		for _, r := range m.To {
			route, err := f.s.routes.of(r.Address.Domain())
			if err == nil && route == f.p.route {
				to = append(to, r)
				continue
			}
			if err == nil {
				err = f.s.discover(r.Address.Domain(), m.ID)
			}
			if err != nil {
				f.s.broken(err)
				return false
			}
		}
	}
	for len(to) > 0 {
		n := min(len(to), maxPerTransaction)
		j := &job{msg: *m, to: to[:n:n]}
		f.s.inflight.Add(1)
		f.readAhead(j)
		select {
		case f.out <- j:
		case <-f.ctx.Done():
			f.s.unanswered(j)
			return false
		case <-f.s.stop:
			f.s.unanswered(j)
			return false
		}
		to = to[n:]
	}
	f.p.after = max(f.p.after, m.ID)
	return true
}

// readAhead reads a small body before its turn comes, so that the connection does
// not wait for the disk. What goes wrong is found when the body is opened.
func (f *feed) readAhead(j *job) {
	n := j.msg.Size
	if !f.flows.Load() || n > smallBody || f.ahead.Load()+n > aheadBytes {
		return
	}
	if b, err := f.s.rows.Small(j.msg.Body, n); err == nil && b != nil {
		j.small, j.ahead = b, n
		f.ahead.Add(n)
	}
}

// taken notes that a job's turn has come.
func (f *feed) taken(j *job) {
	f.ahead.Add(-j.ahead)
	j.ahead = 0
}

// linger waits a moment for new mail; true: read again. Where another route waits
// for its turn it does not, and where other queues wait for this session's place
// only for the answers to what was sent: in a storm of logins the moment would be
// most of a session's time.
func (f *feed) linger() bool {
	for _, p := range f.s.passes {
		if p != f.p && p.pending {
			return false
		}
	}
	linger := f.s.cfg.Linger
	look := min(linger, crowdedLook)
	t := time.NewTimer(look)
	defer t.Stop()
	for waited := look; ; waited += look {
		select {
		case <-f.s.wake:
			return true
		case <-f.s.stop:
			return false
		case <-f.ctx.Done():
			return false
		case <-t.C:
		}
		if over := waited >= linger || f.s.crowded != nil && f.s.crowded.Load(); over {
			if f.s.inflight.Load() == 0 || linger == 0 {
				return false
			}
			waited = 0
		}
		t.Reset(look)
	}
}
