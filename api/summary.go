package api

import (
	"iter"
	"strings"
	"time"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// summarize tells one queue.
func (s *Server) summarize(q spool.Queue, ages bool, now time.Time) (*wire.QueueSummary, error) {
	at := mail.At(now)
	sus, err := s.deps.Node.Spool().Suspended(q.Name, at)
	if err != nil {
		return nil, err
	}
	out := summaryOut(&q, sus, at)
	var failed error
	for a := range agesOf(s.arrivals(q.Name, true, !ages, &failed), at) {
		a.addTo(out, ages)
	}
	if failed != nil && mail.KindOf(failed) != mail.Broken { // a list of messages reports what is broken
		return nil, failed
	}
	if out.Account != "" {
		acct, err := s.deps.Node.Directory().Account(out.Account)
		if err != nil {
			return nil, err
		}
		use, err := s.deps.Node.Quota().Of(out.Account)
		if err != nil {
			return nil, err
		}
		if acct != nil {
			_, limits := s.deps.Node.Settings()
			addQuota(out, limits.QuotaOf(acct), use.Bytes)
		}
	}
	return out, nil
}

func summaryOut(q *spool.Queue, sus *spool.Suspension, now mail.Time) *wire.QueueSummary {
	out := &wire.QueueSummary{
		Queue: string(q.Name), Account: q.Name.Login(), Messages: q.Messages, Bytes: q.Bytes,
		NextAttempt: q.Next.Std(), NextCause: q.Cause.String(), Failing: q.Failing, Failures: q.Failures,
		LastAttempt: q.LastAttempt.Std(), LastCause: q.LastCause.String(), LastOutcome: q.LastOutcome.String(), LastWords: q.LastWords,
		LastRemote: q.LastRemote, LastBanner: q.LastBanner, LastSuccess: q.LastSuccess.Std(), LastLogin: q.LastLogin.Std(),
		LastTrigger: q.LastLoginTrigger.Std(), Debounced: q.Debounced, Hold: holdOut(q.Hold),
	}
	if q.Claim != nil && q.Claim.Until > now {
		out.Active = q.Claim.Node
	}
	if sus != nil {
		out.Suspended = string(sus.Scope)
	}
	return out
}

func addQuota(out *wire.QueueSummary, limit, used int64) {
	out.QuotaBytes, out.UsedBytes = limit, used
	if limit > 0 {
		out.QuotaPercent = float64(int64(1000*float64(used)/float64(limit))) / 10
	}
}

// queueAges is how old the messages of a queue are.
type queueAges struct {
	queue   spool.QueueName
	oldest  mail.Time
	buckets wire.Buckets
	held    int64 // one by one, not as a queue
}

// arrivals gives the messages of a queue and, unless alone, of those after it;
// with oldest only the first.
func (s *Server) arrivals(q spool.QueueName, alone, oldest bool, errp *error) iter.Seq[spool.Arrival] {
	rd := s.deps.Node.Spool()
	rows := agesRows
	if oldest {
		rows = 1
	}
	all := pages(rows, func(last *spool.Arrival, err *error) iter.Seq[spool.Arrival] {
		from := spool.Item{Queue: q}
		if last != nil {
			from = last.Item
		}
		return func(yield func(spool.Arrival) bool) {
			for m := range rd.Arrivals(from, err) {
				if alone && m.Queue != q || !yield(m) {
					return
				}
			}
		}
	}, errp)
	if oldest {
		return limited(all, 1)
	}
	return all
}

// agesOf sums up messages that come queue by queue.
func agesOf(messages iter.Seq[spool.Arrival], now mail.Time) iter.Seq[queueAges] {
	return func(yield func(queueAges) bool) {
		var cur queueAges
		for m := range messages {
			if m.Queue != cur.queue {
				if cur.queue != "" && !yield(cur) {
					return
				}
				cur = queueAges{queue: m.Queue, oldest: m.Arrived} // it comes first
			}
			cur.buckets[bucketOf(now.Sub(m.Arrived))]++
			if m.Held && (m.HeldUntil == 0 || m.HeldUntil > now) {
				cur.held++
			}
		}
		if cur.queue != "" {
			yield(cur)
		}
	}
}

// addTo tells the ages; without all only the oldest.
func (a *queueAges) addTo(out *wire.QueueSummary, all bool) {
	out.Oldest = a.oldest.Std()
	if all {
		out.Ages, out.HeldMessages = a.buckets[:], a.held
	}
}

// inForce reports a hold that there is and that has not ended.
func inForce(h *spool.Hold, now mail.Time) bool { return h != nil && (h.Until == 0 || h.Until > now) }

func bucketOf(age time.Duration) int {
	for i, minutes := range wire.Ages {
		if age <= time.Duration(minutes)*time.Minute {
			return i
		}
	}
	return len(wire.Ages)
}

// summaries tells many queues, in order of name. Looking up the account, use,
// suspension and ages of each would cost five reads per queue; read in order beside
// the queues they cost next to nothing.
type summaries struct {
	s        *Server
	now      mail.Time
	rules    suspensions
	limits   directory.Limits
	section  string // "account/" or "mailbox/": what beside was opened for
	ages     *beside[queueAges]
	accounts *beside[directory.Account]
	other    *beside[spool.Queue] // the account's queue in the other section: both count towards its quota
	failed   error
}

const (
	accountSection = "account/"
	mailboxSection = "mailbox/"
)

func (s *Server) newSummaries(now mail.Time) (*summaries, error) {
	rules, err := s.deps.Node.Spool().Suspensions()
	if err != nil {
		return nil, err
	}
	_, limits := s.deps.Node.Settings()
	return &summaries{s: s, now: now, rules: rules, limits: limits}, nil
}

func (m *summaries) close() {
	if m.ages != nil {
		m.ages.stop()
	}
	m.closeSection()
}

func (m *summaries) closeSection() {
	if m.accounts != nil {
		m.accounts.stop()
		m.other.stop()
	}
}

func (m *summaries) of(q *spool.Queue, ages bool) (*wire.QueueSummary, error) {
	out := summaryOut(q, m.rules.of(q.Name, m.now), m.now)
	if out.Account != "" {
		m.open(q.Name)
		acct, ok := m.accounts.at(string(out.Account))
		other, _ := m.other.at(string(out.Account))
		if ok {
			addQuota(out, m.limits.QuotaOf(&acct), q.Bytes+other.Bytes)
		}
	}
	if q.Messages > 0 {
		if m.ages == nil {
			m.ages = newBeside(agesOf(m.s.arrivals(q.Name, false, false, &m.failed), m.now), func(a *queueAges) string { return string(a.queue) })
		}
		if a, ok := m.ages.at(string(q.Name)); ok {
			a.addTo(out, ages)
		}
	}
	if m.failed != nil && mail.KindOf(m.failed) != mail.Broken { // a list of messages reports what is broken
		return nil, m.failed
	}
	return out, nil
}

// suspensions are all rules, read once for many queues.
type suspensions []spool.Suspension

// of gives the rule that stops a queue, or nil.
func (rules suspensions) of(q spool.QueueName, now mail.Time) *spool.Suspension {
	for i, r := range rules {
		if (r.Scope == spool.ScopeAll || r.Scope == spool.Scope(q)) && inForce(&r.Hold, now) {
			return &rules[i]
		}
	}
	return nil
}

// open begins to read beside the queues of a section, from its first queue on.
func (m *summaries) open(q spool.QueueName) {
	section, other := accountSection, mailboxSection
	if q.IsMailbox() {
		section, other = mailboxSection, accountSection
	}
	if m.section == section {
		return
	}
	m.closeSection()
	m.section = section
	// The cursors stand just before the queue's login.
	before := string(q.Login())
	before = before[:len(before)-1]
	m.accounts = newBeside(accountsAfter(m.s.deps.Node.Directory(), mail.Login(before), &m.failed),
		func(a *directory.Account) string { return string(a.Login) })
	m.other = newBeside(m.s.allQueues(spool.QueueName(other+before), &m.failed), func(q *spool.Queue) string {
		if login, ok := strings.CutPrefix(string(q.Name), other); ok {
			return login
		}
		return "~" // past the section: after every login
	})
}

// beside reads a sequence in step with another one of the same order.
type beside[T any] struct {
	next func() (T, bool)
	stop func()
	key  func(*T) string
	cur  T
	ok   bool
}

func newBeside[T any](seq iter.Seq[T], key func(*T) string) *beside[T] {
	b := &beside[T]{key: key}
	b.next, b.stop = iter.Pull(seq)
	b.cur, b.ok = b.next()
	return b
}

// at gives the row of a key. Keys must be asked for in order.
func (b *beside[T]) at(key string) (T, bool) {
	for b.ok && b.key(&b.cur) < key {
		b.cur, b.ok = b.next()
	}
	if b.ok && b.key(&b.cur) == key {
		return b.cur, true
	}
	var none T
	return none, false
}
