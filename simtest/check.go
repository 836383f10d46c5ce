package simtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// This file is the promises of doc/promises.md, each a function that fails the test.

// Check checks all promises. Every story ends with it.
func (w *World) Check() {
	w.t.Helper()
	synctest.Wait()
	if w.down() {
		w.Restart()
	}
	s := w.survey()
	w.checkNothingIsLost(s)
	w.checkSecondCopies(s)
	w.checkToldOnce(s)
	w.checkRemovedStaysRemoved(s)
	w.checkTexts(s)
	w.checkUsage()
	w.checkOrder()
	w.checkLoginAttempts()
	w.checkNextEvents()
	for _, f := range w.journal.unexcused() {
		w.Errorf("the node complained: %s", f)
	}
}

// breaks fails the story for a promise of doc/promises.md.
func (w *World) breaks(promise int, format string, args ...any) {
	w.t.Helper()
	w.Errorf("promise %d: %s", promise, fmt.Sprintf(format, args...))
}

// checkNothingIsLost: every recipient of every 250 is delivered, waits, was told
// of to the sender, or was removed by the operator.
func (w *World) checkNothingIsLost(s *survey) {
	w.t.Helper()
	for _, l := range w.ledger.all() {
		if l.forgiven() {
			continue
		}
		for _, to := range l.To {
			taken := 0
			for _, c := range l.Copies() {
				if slices.Contains(c.To, to) {
					taken++
				}
			}
			p := part{l.Number, to}
			if have := len(s.delivered[p]) + s.kept[p] + s.told[p] + s.trashed[p]; have < taken {
				w.breaks(1, "letter %d to %s was taken %d times (%v) and is there %d times: %d delivered, %d queued, %d bounced, %d removed: MAIL IS LOST",
					l.Number, to, taken, l.Copies(), have, len(s.delivered[p]), s.kept[p], s.told[p], s.trashed[p])
			}
		}
	}
}

// afterwards is how long after a delivery the node may have lost its power before
// it had recorded it.
const afterwards = 5 * time.Second

// checkSecondCopies: a copy too many has its reason in a connection or a node that
// was lost before the delivery was recorded.
func (w *World) checkSecondCopies(s *survey) {
	w.t.Helper()
	for p, got := range s.delivered {
		l := w.letter(p.letter)
		if l == nil {
			w.breaks(1, "a server got letter %d, which nobody wrote", p.letter)
			continue
		}
		most := l.doubts()
		for _, c := range l.Copies() {
			if slices.Contains(c.To, p.to) {
				most++
			}
		}
		for _, d := range got {
			if w.unrecorded(d) {
				most++
			}
		}
		if len(got)+s.kept[p] > most {
			w.breaks(2, "letter %d to %s was delivered %d times and is queued %d times; at most %d can be explained", p.letter, p.to, len(got), s.kept[p], most)
		}
	}
}

// checkToldOnce: a sender is told once of each recipient that failed.
func (w *World) checkToldOnce(s *survey) {
	w.t.Helper()
	for p, told := range s.told {
		l := w.letter(p.letter)
		if l == nil {
			continue // of an account of ours
		}
		most := l.doubts() + s.toldAgain[p]
		for _, c := range l.Copies() {
			if slices.Contains(c.To, p.to) {
				most++
			}
		}
		if told > most {
			w.breaks(2, "the sender of letter %d was told %d times that %s did not get it; at most %d can be explained", p.letter, told, p.to, most)
		}
	}
}

func (w *World) letter(n int) *Letter {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	return w.ledger.letters[n]
}

// unrecorded reports whether the node may not know of a delivery.
func (w *World) unrecorded(d Delivery) bool {
	if d.denied || !d.conn.wasClean() {
		return true
	}
	for _, l := range w.gone {
		if l.dead.Load() && !l.at.Before(d.At) && d.At.After(l.unsure()) {
			return true
		}
	}
	return false
}

func (w *World) wasRemoved(id mail.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, was := w.removed[id]
	return was
}

// checkRemovedStaysRemoved: what an operator removed is not delivered after he was
// told so. A letter of which there may be other copies is left out.
func (w *World) checkRemovedStaysRemoved(s *survey) {
	w.t.Helper()
	for _, l := range w.ledger.all() {
		copies := l.Copies()
		if len(copies) != 1 || l.doubts() > 0 {
			continue
		}
		w.mu.Lock()
		at, removed := w.removed[copies[0].ID]
		w.mu.Unlock()
		for _, to := range l.To {
			for _, d := range s.delivered[part{l.Number, to}] {
				if removed && !at.IsZero() && d.At.After(at) {
					w.breaks(2, "letter %d was delivered to %s at %s, after its removal at %s", l.Number, to, day(d.At), day(at))
				}
			}
		}
	}
}

// checkTexts: what is delivered is what was written, below one Received field.
func (w *World) checkTexts(s *survey) {
	w.t.Helper()
	for p, got := range s.delivered {
		l := w.letter(p.letter)
		for _, d := range got {
			if l == nil {
				continue
			}
			head, whole := bytes.CutSuffix(d.Data, l.Text)
			if !whole || !bytes.HasPrefix(head, []byte("Received: ")) || bytes.Count(head, []byte("\r\n")) > 4 {
				w.breaks(1, "letter %d came to %s with another text: %.300q", l.Number, p.to, d.Data)
			}
			if d.From != l.From {
				w.breaks(1, "letter %d came from %q", l.Number, d.From)
			}
		}
	}
}

// checkUsage: what an account is charged is the sum of its messages, and not above
// its quota; each queue's row counts its messages.
func (w *World) checkUsage() {
	w.t.Helper()
	n := w.Node().Cluster()
	limits := n.Settings().Limits
	for login := range w.logins {
		var bytes, messages int64
		for _, name := range []spool.QueueName{spool.AccountQueue(login), spool.MailboxQueue(login)} {
			b, m := w.sum(name)
			bytes, messages = bytes+b, messages+m
		}
		u, err := n.Quota().Of(login)
		w.ok("read the usage", err)
		if u.Bytes != bytes || u.Messages != messages {
			w.breaks(3, "account %s is charged %d bytes in %d messages, and holds %d in %d", login, u.Bytes, u.Messages, bytes, messages)
		}
		a, err := n.Directory().Account(login)
		w.ok("read the account", err)
		if a == nil {
			w.breaks(1, "account %s is gone", login)
		} else if q := limits.QuotaOf(a); u.Bytes > q {
			w.breaks(3, "account %s holds %d bytes, above its quota of %d", login, u.Bytes, q)
		}
	}
	var err error
	for q := range w.rows().Queues("", &err) {
		if b, m := w.sum(q.Name); q.Bytes != b || q.Messages != m {
			w.breaks(3, "queue %s says %d bytes in %d messages, and has %d in %d", q.Name, q.Bytes, q.Messages, b, m)
		}
	}
	w.ok("read the queues", err)
}

func (w *World) sum(name spool.QueueName) (bytes, messages int64) {
	var err error
	for m := range w.rows().Messages(name, 0, &err) {
		bytes += m.Size
		messages++
	}
	w.ok("read queue "+string(name), err)
	return bytes, messages
}

// checkOrder: within an account, letters are first tried in the order in which
// they were taken. Letters of which there may be two copies are left out, and those
// that an operator took out and perhaps brought back.
func (w *World) checkOrder() {
	w.t.Helper()
	if w.Config.Delivery.ConnectionsPerAccount > 1 {
		return // then messages may pass each other
	}
	for login, c := range w.logins {
		tried := map[int]bool{}
		last, lastLetter := mail.ID(0), 0
		for _, v := range c.server.Visits() {
			for _, n := range v.letters {
				l := w.letter(n)
				if l == nil || tried[n] {
					continue
				}
				tried[n] = true
				copies := l.Copies()
				if len(copies) != 1 || l.doubts() > 0 || w.wasRemoved(copies[0].ID) {
					continue
				}
				if copies[0].ID < last {
					w.breaks(4, "account %s: letter %d (%s) was first tried after letter %d (%s), which came later",
						login, n, copies[0].ID, lastLetter, last)
				}
				last, lastLetter = copies[0].ID, n
			}
		}
	}
}

// checkLoginAttempts: at most one attempt for a login per account and window (B6).
// An attempt may come later than its login, so each is given a login of its own,
// and these must lie a window apart.
func (w *World) checkLoginAttempts() {
	w.t.Helper()
	all := w.journal.allAttempts()
	slices.SortStableFunc(all, func(a, b attempt) int { return a.began.Compare(b.began) })
	for login, c := range w.logins {
		asked, last := c.asked, time.Time{}
		for _, a := range all {
			if a.queue != string(spool.AccountQueue(login)) || a.cause != spool.CauseLogin.String() {
				continue
			}
			for len(asked) > 0 && asked[0].Before(last) && !w.leapt(last.Add(-w.Config.Spool.LoginWindow), asked[0]) {
				asked = asked[1:]
			}
			if len(asked) == 0 || asked[0].After(a.began) {
				w.breaks(5, "account %s was tried for a login at %s, and no login can be the reason", login, day(a.began))
				break
			}
			last = asked[0].Add(w.Config.Spool.LoginWindow - time.Second)
		}
	}
}

// checkNextEvents: every queue that holds mail has a next event (B24).
func (w *World) checkNextEvents() {
	w.t.Helper()
	n, err := w.rows().WithoutNext(w.Node().Cluster().Now())
	w.ok("read the schedule", err)
	if n > 0 {
		w.breaks(6, "%d queues hold mail and have no next event", n)
	}
}

// watch notices queues that nobody looks after.
type watch struct {
	off      bool
	attended map[string]attention
}

// attention is when a queue was last known to be looked after, in the world's time,
// and its last attempt then, in the node's: the two need not be the same.
type attention struct {
	at   time.Time
	last mail.Time
}

// slack is what an attempt may be late: the end of another session, or of the
// claim of one that has died, comes before it.
const slack = 2 * time.Minute

// look checks, every minute of a story, that no queue that holds mail goes 20
// minutes without an attempt (B3).
func (w *World) look() {
	w.t.Helper()
	if w.down() || w.watch.off {
		clear(w.watch.attended)
		return
	}
	w.checkNextEvents()
	now := time.Now()
	var err error
	for q := range w.rows().Queues("", &err) {
		name := string(q.Name)
		busy := q.Claim != nil && q.Claim.Until > w.Node().Cluster().Now()
		if q.Messages == 0 || !q.Name.IsAccount() || busy || q.Hold != nil {
			delete(w.watch.attended, name)
			continue
		}
		seen, known := w.watch.attended[name]
		if !known || q.LastAttempt != seen.last {
			seen = attention{now, q.LastAttempt}
		}
		if idle := now.Sub(seen.at); idle > w.Config.Spool.Retry+slack {
			w.breaks(6, "queue %s holds %d messages and was not tried for %s", name, q.Messages, idle)
			seen.at = now
		}
		w.watch.attended[name] = seen
	}
	w.ok("read the queues", err)
}

// Queue is an account's row.
func (w *World) Queue(name string) spool.Queue {
	w.t.Helper()
	q, _, err := w.rows().Queue(spool.AccountQueue(mail.Login(name)))
	w.ok("read a queue", err)
	return q
}

// Waiting is how many messages wait in a queue.
func (w *World) Waiting(queue string) int64 {
	w.t.Helper()
	q, _, err := w.rows().Queue(spool.QueueName(queue))
	w.ok("read a queue", err)
	return q.Messages
}

// Delivered expects that exactly these letters, in this order, have come to an
// account's server.
func (w *World) Delivered(name string, letters ...*Letter) {
	w.t.Helper()
	var want []int
	for _, l := range letters {
		want = append(want, l.Number)
	}
	if got := w.Server(name).Letters(); !slices.Equal(got, want) {
		w.Errorf("%s has letters %v; expected %v; the queue's last words: %q", name, got, want, w.Queue(name).LastWords)
	}
}

// Drains waits until every queue is empty that leads to a server, and fails if
// that takes too long.
func (w *World) Drains(limit time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(limit); ; {
		w.Sleep(time.Minute)
		full := w.full()
		if len(full) == 0 {
			return
		}
		if !time.Now().Before(end) {
			w.breaks(8, "not drained within %s though all is well: %s", limit, strings.Join(full, "; "))
			return
		}
	}
}

func (w *World) full() []string {
	var out []string
	var err error
	for q := range w.rows().Queues("", &err) {
		if q.Messages > 0 && !q.Name.IsMailbox() && q.Hold == nil {
			out = append(out, fmt.Sprintf("%s: %d messages, last %s %q, next at %s", q.Name, q.Messages, q.LastOutcome, q.LastWords, day(q.Next.Std())))
		}
	}
	w.ok("read the queues", err)
	return out
}
