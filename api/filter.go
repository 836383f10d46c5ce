package api

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// matcher is a wire.Filter that was understood.
type matcher struct {
	queues    []spool.QueueName // nil: all
	domain    mail.Domain
	sender    pattern
	recipient pattern
	minAge    time.Duration
	maxAge    time.Duration // 0: any
	minSize   int64
	maxSize   int64 // 0: any
	state     string
	now       mail.Time
	arrived   mail.Time // not later than this; 0: any
}

func newMatcher(f *wire.Filter, now time.Time) (*matcher, error) {
	m := &matcher{minSize: f.MinSize, maxSize: f.MaxSize, state: f.State, now: mail.At(now)}
	var err error
	if f.Account != "" {
		login, err := loginOf(string(f.Account))
		if err != nil {
			return nil, err
		}
		m.queues = []spool.QueueName{spool.AccountQueue(login), spool.MailboxQueue(login)}
	}
	if f.Queue != "" {
		q := spool.QueueName(strings.ToLower(f.Queue))
		if !q.Valid() {
			return nil, mail.Fail(mail.Invalid, fmt.Sprintf("%q is not a queue: account/LOGIN, mailbox/LOGIN or out/DOMAIN", f.Queue))
		}
		if m.queues != nil && q.Login() != f.Account {
			return nil, mail.Fail(mail.Invalid, fmt.Sprintf("queue %s does not belong to account %s", q, f.Account))
		}
		m.queues = []spool.QueueName{q}
	}
	if f.Domain != "" {
		if m.domain, err = domainNameOf(f.Domain); err != nil {
			return nil, err
		}
	}
	m.sender, m.recipient = newPattern(f.Sender), newPattern(f.Recipient)
	if m.minAge, err = parseAge(f.MinAge); err != nil {
		return nil, invalid(fmt.Errorf("min_age: %w", err))
	}
	if m.maxAge, err = parseAge(f.MaxAge); err != nil {
		return nil, invalid(fmt.Errorf("max_age: %w", err))
	}
	switch f.State {
	case "", wire.StateActive, wire.StateDeferred, wire.StateHold, wire.StateMailbox, wire.StateTrash:
	default:
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("state %q is unknown; use active, deferred, hold, mailbox or trash", f.State))
	}
	return m, nil
}

// parseAge reads 90s, 20m, 4h, 1h30m or 3d.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not an age; write for example 90s, 20m, 4h or 3d", s)
	}
	return d, nil
}

// pattern matches addresses without case.
type pattern struct {
	text  string // "": any
	parts []string
}

func newPattern(s string) pattern {
	p := pattern{text: strings.ToLower(s)}
	if strings.Contains(p.text, "*") {
		p.parts = strings.Split(p.text, "*")
	}
	return p
}

func (p pattern) match(a mail.Address) bool {
	switch {
	case p.text == "":
		return true
	case p.text == "<>" || strings.EqualFold(p.text, wire.NullSender):
		return a.IsNull()
	}
	s := strings.ToLower(string(a))
	switch {
	case p.parts != nil:
		return globMatch(p.parts, s)
	case p.text[0] == '@':
		return strings.HasSuffix(s, p.text)
	}
	return s == p.text
}

// globMatch reports whether s has the parts in order, the first at its beginning
// and the last at its end.
func globMatch(parts []string, s string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// hit is one message that was found.
type hit struct {
	spool.Message
	queue   *spool.Queue // nil for trash
	removed *spool.Removed
	state   string
}

func (h *hit) item() spool.Item { return spool.Item{Queue: h.Queue, ID: h.ID} }

// stateOf is the state of a message in a queue. stopped: delivery is suspended.
func stateOf(m *spool.Message, q *spool.Queue, stopped bool, now mail.Time) string {
	switch {
	case q.Name.IsMailbox():
		return wire.StateMailbox
	case inForce(m.Hold, now) || inForce(q.Hold, now) || stopped:
		return wire.StateHold
	case q.Claim != nil && q.Claim.Until > now:
		return wire.StateActive
	}
	return wire.StateDeferred
}

func (m *matcher) wants(msg *spool.Message) bool {
	age := m.now.Sub(msg.Arrived)
	if m.minAge > 0 && age < m.minAge || m.maxAge > 0 && age > m.maxAge || msg.Size < m.minSize || m.maxSize > 0 && msg.Size > m.maxSize ||
		m.arrived > 0 && msg.Arrived > m.arrived || !m.sender.match(msg.From) {
		return false
	}
	if m.domain == "" && m.recipient.text == "" {
		return true
	}
	for _, r := range msg.To {
		if (m.domain == "" || r.Address.Domain() == m.domain) && m.recipient.match(r.Address) {
			return true
		}
	}
	return false
}

// cursor is where a search goes on: after this message.
type cursor = spool.Item

// find gives the messages that match, queue by queue in order of name, within a
// queue in order of arrival.
func (s *Server) find(m *matcher, after cursor, errp *error) iter.Seq[hit] {
	if m.state == wire.StateTrash {
		return s.findTrash(m, after, errp)
	}
	rules, err := s.deps.Node.Spool().Suspensions()
	if err != nil {
		*errp = err
		return func(func(hit) bool) {}
	}
	if m.queues == nil && m.state == "" {
		return s.findAcross(m, after, rules, errp)
	}
	return func(yield func(hit) bool) {
		for q := range s.searched(m, after.Queue, errp) {
			if q.Messages == 0 || m.state != "" && (m.state == wire.StateMailbox) != q.Name.IsMailbox() {
				continue
			}
			from := mail.ID(0)
			if q.Name == after.Queue {
				from = after.ID
			}
			if !s.findIn(m, &q, from, rules, errp, yield) {
				return
			}
		}
	}
}

// searched gives the queues to look through, from one on, that one included.
func (s *Server) searched(m *matcher, from spool.QueueName, errp *error) iter.Seq[spool.Queue] {
	rd := s.deps.Node.Spool()
	return func(yield func(spool.Queue) bool) {
		names := m.queues
		if names == nil && from != "" {
			names = []spool.QueueName{from}
		}
		for _, name := range names {
			q, ok, err := rd.Queue(name)
			if err != nil {
				*errp = err
				return
			}
			if ok && name >= from && !yield(q) {
				return
			}
		}
		if m.queues != nil {
			return
		}
		for q := range s.allQueues(from, errp) {
			if !yield(q) {
				return
			}
		}
	}
}

// findIn looks through one queue; false: the caller wants no more.
func (s *Server) findIn(m *matcher, q *spool.Queue, from mail.ID, rules suspensions, errp *error, yield func(hit) bool) bool {
	rd := s.deps.Node.Spool()
	stopped := rules.of(q.Name, m.now) != nil
	messages := pages(pageRows, func(last *spool.Message, err *error) iter.Seq[spool.Message] {
		if last == nil {
			return rd.Messages(q.Name, from, err)
		}
		return rd.Messages(q.Name, last.ID, err)
	}, errp)
	for msg := range messages {
		if !m.wants(&msg) {
			continue
		}
		h := hit{Message: msg, queue: q, state: stateOf(&msg, q, stopped, m.now)}
		if m.state != "" && m.state != h.state {
			continue
		}
		if !yield(h) {
			return false
		}
	}
	return true
}

// findAcross looks through all queues in one walk. Going into each by itself would
// cost more than its few messages.
func (s *Server) findAcross(m *matcher, after cursor, rules suspensions, errp *error) iter.Seq[hit] {
	rd := s.deps.Node.Spool()
	messages := pages(pageRows, func(last *spool.Message, err *error) iter.Seq[spool.Message] {
		if last == nil {
			return rd.Across(after, err)
		}
		return rd.Across(spool.Item{Queue: last.Queue, ID: last.ID}, err)
	}, errp)
	return func(yield func(hit) bool) {
		var queues *beside[spool.Queue]
		var q *spool.Queue
		stopped := false
		for msg := range messages {
			if !m.wants(&msg) {
				continue
			}
			if q == nil || q.Name != msg.Queue {
				if queues == nil {
					queues = newBeside(s.allQueues(before(msg.Queue), errp), func(q *spool.Queue) string { return string(q.Name) })
					defer queues.stop()
				}
				row, ok := queues.at(string(msg.Queue))
				if !ok { // it has become a queue since
					var err error
					if row, ok, err = rd.Queue(msg.Queue); err != nil {
						*errp = err
					}
					if err != nil && mail.KindOf(err) != mail.Broken {
						return
					}
				}
				if !ok {
					continue // or is broken, or is none any more
				}
				q, stopped = &row, rules.of(row.Name, m.now) != nil
			}
			if !yield(hit{Message: msg, queue: q, state: stateOf(&msg, q, stopped, m.now)}) {
				return
			}
		}
	}
}

// before is a name that stands before q, and after most that do.
func before(q spool.QueueName) spool.QueueName { return q[:len(q)-1] }

func (s *Server) findTrash(m *matcher, after cursor, errp *error) iter.Seq[hit] {
	return func(yield func(hit) bool) {
		for r := range s.trash(after, errp) {
			if m.queues != nil && !containsQueue(m.queues, r.Message.Queue) || !m.wants(&r.Message) {
				continue
			}
			if !yield(hit{Message: r.Message, removed: &r, state: wire.StateTrash}) {
				return
			}
		}
	}
}

func (s *Server) trash(after cursor, errp *error) iter.Seq[spool.Removed] {
	rd := s.deps.Node.Spool()
	return pages(pageRows, func(last *spool.Removed, err *error) iter.Seq[spool.Removed] {
		if last == nil {
			return rd.Trash(after, err)
		}
		return rd.Trash(spool.Item{Queue: last.Message.Queue, ID: last.Message.ID}, err)
	}, errp)
}

func containsQueue(list []spool.QueueName, q spool.QueueName) bool {
	for _, v := range list {
		if v == q {
			return true
		}
	}
	return false
}

// byID gives every row of a message, removed ones too.
func (s *Server) byID(id mail.ID, now mail.Time) ([]hit, error) {
	rd := s.deps.Node.Spool()
	queues, err := rd.Where(id)
	if err != nil {
		return nil, err
	}
	var out []hit
	for _, name := range queues {
		msg, ok, err := rd.Message(name, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		q, _, err := rd.Queue(name)
		if err != nil {
			return nil, err
		}
		sus, err := rd.Suspended(name, now)
		if err != nil {
			return nil, err
		}
		out = append(out, hit{Message: msg, queue: &q, state: stateOf(&msg, &q, sus != nil, now)})
	}
	// The trash is in order of ID, then queue.
	var terr error
	for r := range rd.Trash(spool.Item{ID: id}, &terr) {
		if r.Message.ID != id {
			break
		}
		out = append(out, hit{Message: r.Message, removed: &r, state: wire.StateTrash})
	}
	return out, terr
}
