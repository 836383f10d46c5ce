package spool

import (
	"testing"
	"time"

	"bsmtpd/mail"
)

// A queue whose session leaves everything as it was must not be due again at
// once: the next session would do the same, and the next, as fast as the disk is.
func TestADamagedMessageDoesNotMakeAQueueDueWithoutEnd(t *testing.T) {
	for _, name := range []QueueName{jansen, world} {
		for _, alone := range []bool{true, false} {
			b := newBench(t)
			b.limits["jansen"] = 1 << 20
			s := &story{bench: b}
			seen := mail.ID(1) // as of a session that saw nothing
			if !alone {
				seen = s.MailTo(name)
			}
			bad := s.MailTo(name)
			s.must(func(m *Moves) error { return m.Tx.Set(messageKey(name, bad), []byte("damaged")) })
			s.Start(name, CauseNew)
			s.End(name, OutcomeDone, func(f *Finish) { f.SeenTo, f.EarliestRetry = seen, s.now.Add(5*time.Minute) })
			if q := s.queue(name); q.Next != s.now.Add(5*time.Minute) || s.dueEffect(name) {
				t.Errorf("%s, the damaged one alone %v: next attempt in %s", name, alone, q.Next.Sub(s.now))
			}
			s.close()
		}
	}
}

// Machine time never goes back. A node whose clock was set back is behind it for
// as long as it was ahead.
func TestAClockThatIsBehindDoesNotMakeAQueueDueWithoutEnd(t *testing.T) {
	const behind = 24 * time.Hour
	for what, end := range map[string]struct {
		outcome Outcome
		retry   time.Duration // by the node's clock, of a message that was deferred
		next    time.Duration
	}{
		"nobody answered":       {OutcomeFailed, 0, 20 * time.Minute},
		"the line broke":        {OutcomeLost, 5 * time.Minute, 20 * time.Minute},
		"a message was put off": {OutcomeDone, 5 * time.Minute, 5 * time.Minute},
		"nothing was sent":      {OutcomeNothing, 0, 20 * time.Minute},
	} {
		s := newStory(t)
		id := s.Mail("jansen")
		s.Start(jansen, CauseTimer)
		s.End(jansen, end.outcome, func(f *Finish) {
			clock := s.now.Add(-behind)
			f.Began, f.SeenTo = clock, id
			if end.retry != 0 {
				f.EarliestRetry = clock.Add(end.retry)
			}
		})
		if q := s.queue(jansen); q.Next != s.now.Add(end.next) {
			t.Errorf("%s: next attempt in %s, want %s", what, q.Next.Sub(s.now), end.next)
		}
		if s.dueEffect(jansen) {
			t.Errorf("%s: the queue is to be tried at once", what)
		}
	}
}

// A clock that was behind when the session began and was put right before it ended
// does not put mail to the world off by as much as it was behind.
func TestAClockThatCaughtUpAmidASessionPutsNothingOff(t *testing.T) {
	s := newStory(t)
	id := s.MailTo(world)
	s.Start(world, CauseTimer)
	s.End(world, OutcomeDone, func(f *Finish) {
		f.Began, f.SeenTo, f.EarliestRetry = s.now.Add(-24*time.Hour), id, s.now.Add(5*time.Minute)
	})
	if q := s.queue(world); q.Next != s.now.Add(5*time.Minute) {
		t.Errorf("next attempt in %s", q.Next.Sub(s.now))
	}
}

// One damaged row of a queue must not keep everything else from its end.
func TestADamagedQueueDoesNotHoldUpWhatIsPastItsLife(t *testing.T) {
	b := newBench(t)
	defer b.close()
	s := &story{bench: b}
	const other = QueueName("out/other.example")
	stuck := s.MailTo(world)
	s.MailTo(other)
	s.must(func(m *Moves) error { return m.Tx.Set(queueKey(world), []byte("damaged")) })
	s.Wait(s.set.OutLife)
	for range 2 {
		make1(s.bench, func(m *Moves) (Expired, error) { return m.Expire(Expire{Limit: 1}) })
	}
	if n := s.queue(other).Messages; n != 0 {
		t.Errorf("%d messages of another queue are still there", n)
	}
	if _, ok, err := s.reader().Message(world, stuck); !ok || err != nil {
		t.Errorf("the message of the damaged queue is gone: %v", err)
	}
}
