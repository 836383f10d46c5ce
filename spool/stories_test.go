package spool

import (
	"slices"
	"testing"
	"time"

	"bsmtpd/mail"
)

const (
	jansen = QueueName("account/jansen")
	world  = QueueName("out/example.org")
)

// B1: new mail is tried at once while the server answers.
func TestNewMailIsTriedAtOnce(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	s.WantNext(jansen, 0, CauseNew)
	if s.Online("jansen") != 1 {
		t.Error("the message was not handed over")
	}
	s.WantNext(jansen, -1, CauseNone)
	s.Wait(time.Hour)
	s.Mail("jansen")
	s.WantNext(jansen, 0, CauseNew)
}

// B2: kept without expiry, in order of arrival.
func TestMailForACustomerWhoIsAwayIsKeptForEverAndInOrder(t *testing.T) {
	s := newStory(t)
	var want []mail.ID
	for range 50 {
		want = append(want, s.Mail("jansen"))
		s.Wait(someDays)
		if got := make1(s.bench, func(m *Moves) (Expired, error) { return m.Expire(Expire{Limit: 500}) }); got.Messages != 0 {
			t.Fatal("mail for a customer was given up for its age")
		}
	}
	s.Offline("jansen")
	var got []mail.ID
	var err error
	for m := range s.reader().Messages(jansen, 0, &err) {
		got = append(got, m.ID)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the queue holds %v, %v; want %v", got, err, want)
	}
}

// B3: every 20 minutes, whatever comes in between.
func TestAnAttemptRunsEveryTwentyMinutesWhileThereIsMail(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	for range 10 {
		s.Offline("jansen")
		s.WantNext(jansen, 20*time.Minute, CauseTimer)
		s.Wait(7 * time.Minute)
		s.Mail("jansen") // does not hurry a server that did not answer
		s.WantNext(jansen, 13*time.Minute, CauseTimer)
		s.Wait(13 * time.Minute)
		due, err := s.reader().Due(s.now, 10)
		if err != nil || len(due) != 1 || due[0].Queue != jansen {
			t.Fatalf("due are %v, %v", due, err)
		}
	}
	s.Online("jansen")
	s.WantNext(jansen, -1, CauseNone)
}

func TestTwentyMinutesAreCountedFromTheBeginningOfTheAttempt(t *testing.T) {
	for _, c := range []struct {
		name  string
		took  time.Duration
		next  time.Duration
		cause Cause
		end   func(*Finish)
	}{
		{"a quick refusal", 0, 20 * time.Minute, CauseTimer, func(f *Finish) { f.Outcome = OutcomeFailed }},
		{"a connection lost after four minutes", 4 * time.Minute, 16 * time.Minute, CauseTimer, func(f *Finish) { f.Outcome = OutcomeLost }},
		{"one that took half an hour", 30 * time.Minute, 0, CauseTimer, func(f *Finish) { f.Outcome = OutcomeFailed }},
		{"deferred for five minutes by a server that answers", time.Minute, 5 * time.Minute, CauseTimer, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t)
			id := s.Mail("jansen")
			s.Start(jansen, CauseTimer)
			began := s.now
			s.Wait(c.took)
			s.End(jansen, OutcomeDone, func(f *Finish) {
				f.Began, f.SeenTo = began, id
				if c.end != nil {
					c.end(f)
				} else {
					f.EarliestRetry = s.now.Add(5 * time.Minute)
				}
			})
			s.WantNext(jansen, c.next, c.cause)
		})
	}
}

// An attempt that was broken off by ourselves says nothing about the other side.
func TestAnAttemptThatLearnedNothingLeavesTheStateOfFailure(t *testing.T) {
	for _, o := range []Outcome{OutcomeNothing, OutcomeExpired} {
		s := newStory(t)
		s.Mail("jansen")
		for range 2 {
			s.Start(jansen, CauseTimer)
			s.End(jansen, OutcomeFailed, func(f *Finish) { f.Words, f.SeenTo = "no route to host", 1 })
		}
		s.Start(jansen, CauseOperator)
		s.End(jansen, o, func(f *Finish) { f.SeenTo = 1 })
		if q := s.queue(jansen); !q.Failing || q.Failures != 2 || q.LastWords != "no route to host" || q.LastOutcome != OutcomeFailed {
			t.Errorf("%s: %+v", o, q)
		}
		s.WantNext(jansen, 0, CauseNew) // it had not seen the mail
		s.Start(jansen, CauseTimer)
		s.End(jansen, OutcomeDone, func(f *Finish) { f.SeenTo = 1 })
		if q := s.queue(jansen); q.Failing || q.Failures != 0 {
			t.Errorf("after a success: %+v", q)
		}
	}
}

// B3 holds whatever a session asks for: no deferral of one message and no wrong
// clock makes a customer wait longer.
func TestNoSessionCanPutACustomerOffForLongerThanTwentyMinutes(t *testing.T) {
	for name, change := range map[string]func(*story, *Finish){
		"every message deferred for a day": func(s *story, f *Finish) { f.EarliestRetry = s.now.Add(24 * time.Hour) },
		"a clock that is a day ahead, failed": func(s *story, f *Finish) {
			f.Began, f.Outcome = s.now.Add(24*time.Hour), OutcomeFailed
		},
		"a clock that is a day ahead, done": func(s *story, f *Finish) { f.Began = s.now.Add(24 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.Mail("jansen")
			s.Start(jansen, CauseTimer)
			s.End(jansen, OutcomeDone, func(f *Finish) { change(s, f) })
			s.WantNext(jansen, 20*time.Minute, CauseTimer)
		})
	}
}

// B4: a sweep makes everything due, and repairs what has no next event.
func TestTheSweepForgetsNobody(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	s.Mail("devries")
	s.MailTo(world)
	s.Offline("jansen")
	s.Offline("devries")
	s.Unreachable(world)
	s.must(func(m *Moves) error { // a row is lost
		return m.Tx.Delete(schedKey(s.queue(jansen).Next, jansen))
	})
	if n, err := s.reader().WithoutNext(s.now); n != 1 || err != nil {
		t.Errorf("%d queues are said to have no next event, %v; want 1", n, err)
	}
	s.Wait(time.Minute)
	watch := make1(s.bench, func(m *Moves) (Swept, error) { return m.Sweep(Sweep{Limit: 100, RepairOnly: true}) })
	if watch.Repaired != 1 || watch.Due != 0 {
		t.Errorf("the watchdog did %+v, want one repair", watch)
	}
	s.WantNext(jansen, 0, CauseSweep)
	s.WantNext("account/devries", 19*time.Minute, CauseTimer)
	swept := make1(s.bench, func(m *Moves) (Swept, error) { return m.Sweep(Sweep{Limit: 100}) })
	if swept.Repaired != 0 || swept.Due != 1 || !s.dueEffect("account/devries") {
		t.Errorf("the sweep did %+v, want one queue made due", swept)
	}
	s.WantNext("account/devries", 0, CauseSweep)
	s.WantNext(world, 4*time.Minute, CauseTimer) // the world has its own schedule
	if at, err := s.reader().LastSweep(); at != s.now || err != nil {
		t.Errorf("the last sweep was at %d, %v", at, err)
	}
}

// B6: at most one login-triggered attempt in 20 minutes.
func TestLoginsAreDebounced(t *testing.T) {
	type login struct {
		after     time.Duration
		debounced bool
	}
	for _, c := range []struct {
		name   string
		before func(*story)
		logins []login
	}{
		{"one in twenty minutes", func(s *story) { s.Mail("jansen"); s.Offline("jansen") },
			[]login{{time.Minute, false}, {time.Minute, true}, {18*time.Minute + 59*time.Second, true}, {time.Second, false}}},
		{"the window is not prolonged by logins in it", func(s *story) { s.Mail("jansen"); s.Offline("jansen") },
			[]login{{0, false}, {10 * time.Minute, true}, {10 * time.Minute, false}, {10 * time.Minute, true}, {10 * time.Minute, false}}},
		{"a login that finds no mail opens no window", func(s *story) {},
			[]login{{0, false}, {time.Second, false}}},
		{"a login while all mail has just been handed over opens no window", func(s *story) {
			s.Mail("jansen")
			s.Start(jansen, CauseNew)
			s.Send(jansen)
		}, []login{{time.Second, false}, {time.Second, false}}},
		{"nor one for a queue that is held", func(s *story) {
			s.Mail("jansen")
			s.must(func(m *Moves) error { return m.HoldQueue(HoldQueue{Queue: jansen, By: "op"}) })
		}, []login{{0, false}, {time.Second, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t)
			c.before(s)
			for i, l := range c.logins {
				s.Wait(l.after)
				if got := s.Login("jansen"); got != l.debounced {
					t.Errorf("login %d: debounced %v, want %v", i+1, got, l.debounced)
				}
			}
		})
	}
}

func TestADebouncedLoginIsRecordedAndTheTimerStillApplies(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	s.Offline("jansen")
	s.Wait(time.Minute)
	s.Login("jansen")
	s.WantNext(jansen, 0, CauseLogin)
	s.Offline("jansen")
	s.Wait(time.Minute)
	s.Login("jansen")
	s.WantNext(jansen, 19*time.Minute, CauseTimer)
	if q := s.queue(jansen); q.Debounced != 1 || q.LastLogin != s.now || q.LastLoginTrigger != s.now-mail.Time(time.Minute/time.Microsecond) {
		t.Errorf("the debounced login is not on record: %+v", q)
	}
}

// B5: a login while a session is at work that then fails is not lost.
func TestALoginDuringASessionThatFailsIsTriedAtOnce(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	s.Start(jansen, CauseTimer)
	s.Wait(10 * time.Second)
	s.Login("jansen")
	s.WantNext(jansen, 4*time.Minute+50*time.Second, CauseTimer) // the session's own end
	s.End(jansen, OutcomeFailed)
	s.WantNext(jansen, 0, CauseLogin)
}

func TestALoginOrMailThatMustWaitAMomentStaysALogin(t *testing.T) {
	s := newStory(t)
	id := s.Mail("jansen")
	s.Start(jansen, CauseTimer)
	s.must(func(m *Moves) error { // the operator waits for the session to end
		_, err := m.Act(Act{Action: ActRemove, Items: []Item{{jansen, id}}, By: "op"})
		return err
	})
	s.End(jansen, OutcomeFailed)
	s.WantNext(jansen, quietFor*time.Microsecond, CauseTimer)
	s.Login("jansen")
	s.WantNext(jansen, quietFor*time.Microsecond, CauseLogin)
	s.Mail("jansen") // must not make less of it
	s.WantNext(jansen, quietFor*time.Microsecond, CauseLogin)
}

func TestASessionThatDiesGivesItsQueueBack(t *testing.T) {
	for _, name := range []QueueName{jansen, world} {
		s := newStory(t)
		s.MailTo(name)
		s.Start(name, CauseNew)
		s.Wait(5 * time.Minute)
		s.WantNext(name, 0, CauseTimer)
		dead := s.session
		if d := s.Start(name, CauseTimer); d != Granted {
			t.Fatalf("%s: denial %d", name, d)
		}
		if q := s.queue(name); q.LastOutcome != OutcomeExpired {
			t.Errorf("%s: that the session died is not on record: %v", name, q.LastOutcome)
		}
		late := make1(s.bench, func(m *Moves) (Finished, error) {
			return m.Finish(Finish{Queue: name, Session: dead, Outcome: OutcomeDone, Began: s.now})
		})
		if !late.Stale || s.queue(name).Claim.Session != s.session {
			t.Errorf("%s: a dead session ended that of another: %+v", name, late)
		}
		s.Send(name)
		s.Wait(5 * time.Minute) // this one dies after its last message
		if d := s.Start(name, CauseTimer); d != Empty {
			t.Errorf("%s: denial %d, want empty", name, d)
		}
		s.WantNext(name, -1, CauseNone)
	}
}

func TestMailToTheWorldIsGivenUpAfterFiveDays(t *testing.T) {
	s := newStory(t)
	s.MailTo(world)
	var waited, last time.Duration
	for waited < 5*24*time.Hour {
		s.Unreachable(world)
		next, _ := s.Next(world)
		if next < last || next > 4*time.Hour {
			t.Errorf("after %v the next attempt is in %v, before it was %v", waited, next, last)
		}
		last = next
		waited += next
		s.Wait(next)
	}
	if got := make1(s.bench, func(m *Moves) (Expired, error) { return m.Expire(Expire{Limit: 500}) }); got.Messages != 1 {
		t.Errorf("expired: %+v", got)
	}
	owed, err := s.reader().Owed(OwedKey{}, 10)
	if err != nil || len(owed) != 1 || owed[0].To[0].Cause != FailExpired || owed[0].From != "sender@example.net" {
		t.Errorf("owed: %+v, %v", owed, err)
	}
}

func TestAnEmptyRowThatTellsNothingIsNotKept(t *testing.T) {
	s := newStory(t)
	for _, q := range []QueueName{"account/nobody", "mailbox/nobody", "out/nowhere", "rubbish"} {
		s.Start(q, CauseTimer)
		s.must(func(m *Moves) error { _, err := m.Settle(Settle{Queue: q, Session: 1}); return err })
		s.must(func(m *Moves) error { _, err := m.Trigger(Trigger{Queue: q, Cause: CauseOperator}); return err })
		s.must(func(m *Moves) error {
			_, err := m.Act(Act{Action: ActRetry, Items: []Item{{q, 1}}, By: "op"})
			return err
		})
	}
	if r := s.read(); len(r.queues) != 0 {
		t.Errorf("rows were made for queues that nothing ever happened to: %v", r.queues)
	}
}

func TestRemovedMailComesBackToAQueueWhoseSessionDied(t *testing.T) {
	s := newStory(t)
	id := s.MailTo(world)
	s.must(func(m *Moves) error {
		_, err := m.Act(Act{Action: ActRemove, Items: []Item{{world, id}}, By: "op"})
		return err
	})
	s.MailTo(world)
	s.Start(world, CauseNew)
	s.Send(world)
	s.Wait(time.Hour)
	got := make1(s.bench, func(m *Moves) (Acted, error) {
		return m.Act(Act{Action: ActRequeue, Items: []Item{{world, id}}, By: "op"})
	})
	if got.Done != 1 {
		t.Errorf("requeue: %+v", got)
	}
	s.WantNext(world, 0, CauseOperator)
}

// A session goes through its queue once. What comes back to a place that it has
// passed must not wait for the timer.
func TestMailThatComesBackBehindASessionIsTriedAtOnce(t *testing.T) {
	for _, action := range []Action{ActRelease, ActRequeue} {
		s := newStory(t)
		id := s.MailTo(jansen)
		before := ActHold
		if action == ActRequeue {
			before = ActRemove
		}
		act := func(a Action) {
			s.must(func(m *Moves) error {
				_, err := m.Act(Act{Action: a, Items: []Item{{jansen, id}}, By: "op"})
				return err
			})
		}
		act(before)
		last := s.MailTo(jansen)
		s.Start(jansen, CauseNew)
		act(action)
		s.must(func(m *Moves) error {
			_, err := m.Settle(Settle{Queue: jansen, Session: s.session, Results: []Result{{ID: last, To: []RecipientResult{{Address: "info@example.org", Fate: Sent}}}}})
			return err
		})
		s.End(jansen, OutcomeDone, func(f *Finish) { f.SeenTo = last })
		s.WantNext(jansen, 0, CauseOperator)
	}
}

// What may be on the wire at this moment is not given up.
func TestMailIsNotGivenUpForItsAgeWhileASessionMaySendIt(t *testing.T) {
	s := newStory(t)
	s.MailTo(world)
	s.Unreachable(world)
	s.Wait(5*24*time.Hour - time.Minute)
	s.Start(world, CauseTimer)
	s.Wait(2 * time.Minute)
	expire := func() int {
		return make1(s.bench, func(m *Moves) (Expired, error) { return m.Expire(Expire{Limit: 500}) }).Messages
	}
	if n := expire(); n != 0 || s.queue(world).Messages != 1 {
		t.Errorf("%d messages were given up under a session at work", n)
	}
	s.Wait(3 * time.Minute) // its claim has passed
	if n := expire(); n != 1 {
		t.Errorf("%d messages were given up after it, want 1", n)
	}
}

// Mail that comes while a session ends must not wait for the timer.
func TestMailThatASessionDidNotSeeIsTriedAtOnce(t *testing.T) {
	for _, name := range []QueueName{jansen, world} {
		s := newStory(t)
		seen := s.MailTo(name)
		s.Start(name, CauseNew)
		s.MailTo(name)
		s.End(name, OutcomeDone, func(f *Finish) { f.SeenTo, f.EarliestRetry = seen, s.now.Add(time.Hour) })
		s.WantNext(name, 0, CauseNew)
	}
}

// A login that finds held mail only has nothing to push: the next one, after the
// operator released it, must not be debounced.
func TestALoginThatFindsHeldMailOnlyOpensNoWindow(t *testing.T) {
	s := newStory(t)
	id := s.Mail("jansen")
	act := func(a Action) {
		s.must(func(m *Moves) error {
			_, err := m.Act(Act{Action: a, Items: []Item{{jansen, id}}, By: "op"})
			return err
		})
	}
	login := func() (debounced bool) {
		s.must(func(m *Moves) (err error) { debounced, _, err = m.LoginTrigger(jansen); return err })
		return debounced
	}
	act(ActHold)
	act(ActHold) // twice is once
	if login() || s.dueEffect(jansen) {
		t.Error("held mail is pushed")
	}
	act(ActRelease)
	if login() || !s.dueEffect(jansen) {
		t.Error("the login after the release starts nothing")
	}
	if !login() {
		t.Error("the third is not debounced")
	}
}

func TestAQueueNameHasNoControlBytes(t *testing.T) {
	for _, q := range []QueueName{"account/a\x00b", "out/x\ny", "mailbox/a\x7f", "account/"} {
		if q.Valid() {
			t.Errorf("%q is valid", q)
		}
	}
	if !jansen.Valid() || !QueueName("account/jürgen").Valid() {
		t.Error("a good name is refused")
	}
}

func TestAClaimHasABoundAndAFreshNumber(t *testing.T) {
	s := newStory(t)
	s.Mail("jansen")
	claim := func(c Claim) (ClaimResult, error) {
		c.Queue, c.Node, c.Cause = jansen, "n1", CauseNew
		var r ClaimResult
		err := s.do(func(m *Moves) (err error) { r, err = m.Claim(c); return err })
		return r, err
	}
	for _, c := range []Claim{{}, {Until: s.now}, {Life: -time.Second}, {Until: s.now - 1, Session: 3}} {
		if _, err := claim(c); mail.KindOf(err) != mail.Invalid {
			t.Errorf("%+v: %v, and it is over when it begins", c, err)
		}
	}
	first, err := claim(Claim{Life: 1000 * time.Hour})
	if err != nil || first.Denial != Granted || first.Session == 0 || first.Until != s.now.Add(MaxClaimLife) {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, _ := claim(Claim{Life: time.Minute}); again.Denial != Taken {
		t.Errorf("a second session: %+v", again)
	}
	if more, _ := claim(Claim{Life: time.Minute, Session: first.Session}); more.Denial != Granted || more.Until != s.now.Add(time.Minute) {
		t.Errorf("more time for the first: %+v", more)
	}
	s.Wait(2 * time.Minute)
	if other, _ := claim(Claim{Life: time.Minute}); other.Denial != Granted || other.Session == first.Session {
		t.Errorf("another session: %+v", other)
	}
}
