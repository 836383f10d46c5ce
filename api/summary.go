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
	return out, s.addAges(out, &q, ages, at)
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

// addAges counts a queue's messages by age, and those that are held; without all
// only the oldest is looked at, which comes first.
func (s *Server) addAges(out *wire.QueueSummary, q *spool.Queue, all bool, now mail.Time) error {
	if q.Messages == 0 {
		return nil
	}
	rd := s.deps.Node.Spool()
	var buckets wire.Buckets
	var err error
	for m := range rd.Messages(q.Name, 0, &err) {
		if out.Oldest.IsZero() {
			out.Oldest = m.Arrived.Std()
		}
		if !all {
			break
		}
		buckets[bucketOf(now.Sub(m.Arrived))]++
		if inForce(m.Hold, now) {
			out.HeldMessages++
		}
	}
	if all {
		out.Ages = buckets[:]
	}
	if mail.KindOf(err) == mail.Broken {
		return nil // a list of messages reports it
	}
	return err
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

// summaries tells many queues, in order of name. Looking up the account, use and
// suspension of each would cost four reads per queue; read in order beside the
// queues they cost next to nothing.
type summaries struct {
	s        *Server
	now      mail.Time
	rules    []spool.Suspension
	limits   directory.Limits
	section  string // "account/" or "mailbox/": what beside was opened for
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
	if m.accounts != nil {
		m.accounts.stop()
		m.other.stop()
	}
}

func (m *summaries) of(q *spool.Queue, ages bool) (*wire.QueueSummary, error) {
	out := summaryOut(q, m.suspended(q.Name), m.now)
	if out.Account != "" {
		m.open(q.Name)
		acct, ok := m.accounts.at(string(out.Account))
		other, _ := m.other.at(string(out.Account))
		if ok {
			addQuota(out, m.limits.QuotaOf(&acct), q.Bytes+other.Bytes)
		}
		if m.failed != nil && mail.KindOf(m.failed) != mail.Broken {
			return nil, m.failed
		}
	}
	return out, m.s.addAges(out, q, ages, m.now)
}

func (m *summaries) suspended(q spool.QueueName) *spool.Suspension {
	for i, r := range m.rules {
		if (r.Scope == spool.ScopeAll || r.Scope == spool.Scope(q)) && inForce(&r.Hold, m.now) {
			return &m.rules[i]
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
	m.close()
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
