package delivery

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func TestNewMailGoesOverTheSameConnection(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, delay: 50 * time.Millisecond})
		for i := range 5 {
			w.mail("jansen", fmt.Sprintf("%d\r\n", i))
			w.pass(150 * time.Millisecond)
		}
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if m.bodies() != "0 1 2 3 4" || m.connections() != 1 {
			t.Fatal(m.bodies(), m.connections())
		}
		w.mail("jansen", "late\r\n")
		w.pass(time.Second)
		if w.left(jansensQueue, 0); m.connections() != 2 {
			t.Fatal(m.connections())
		}
		if n := w.metric("delivery_sessions_total"); n != 2 {
			t.Fatal(n, "sessions")
		}
	})
}

func TestResultsAreReportedInBatchesAndInOrder(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		var sizes []int
		var ids []mail.ID
		var first, second time.Time
		w.hook = func(c any) {
			if s, ok := c.(spool.Settle); ok {
				sizes = append(sizes, len(s.Results))
				for _, r := range s.Results {
					ids = append(ids, r.ID)
				}
				if first.IsZero() {
					first = time.Now()
				} else if second.IsZero() {
					second = time.Now()
				}
			}
		}
		w.jansen(&mx{offers: []string{"PIPELINING"}, delay: 10 * time.Millisecond})
		w.pusher.Pause(true)
		for range 30 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
		for i := 1; i < len(ids); i++ {
			if ids[i] <= ids[i-1] {
				t.Fatal("out of order:", ids)
			}
		}
		if len(ids) != 30 || len(sizes) < 3 || second.Sub(first) < 50*time.Millisecond || second.Sub(first) > 100*time.Millisecond {
			t.Fatal(sizes, second.Sub(first))
		}
	})
}

func TestHeldAndPostponedMessagesArePassedOver(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, final: func(c *mxConn, a *arrived) string {
			if c.n == 1 && strings.HasPrefix(a.body, "later") {
				return "451 4.2.0 later"
			}
			return "250 ok"
		}})
		w.pusher.Pause(true)
		held := w.mail("jansen", "held\r\n")
		w.act(spool.Act{Action: spool.ActHold, Items: []spool.Item{{Queue: jansensQueue, ID: held}}, By: "op", Reason: "look"})
		w.mail("jansen", "later\r\n")
		w.pusher.Pause(false)
		w.pass(time.Second)
		w.mail("jansen", "new\r\n")
		w.pass(time.Second)
		w.left(jansensQueue, 2)
		if m.bodies() != "new" || m.connections() != 2 {
			t.Fatal(m.bodies())
		}
		w.pass(20 * time.Minute)
		if left := w.left(jansensQueue, 1); left[0].ID != held || m.bodies() != "new later" {
			t.Fatal(left, m.bodies())
		}
		w.act(spool.Act{Action: spool.ActRelease, Items: []spool.Item{{Queue: jansensQueue, ID: held}}, By: "op"})
		w.pass(time.Second)
		w.left(jansensQueue, 0)
	})
}

// TestOperatorsChangeEndsTheSession: what an operator removes must not arrive after
// he was told that it is removed.
func TestOperatorsChangeEndsTheSession(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: func(*mxConn, *arrived) string {
			time.Sleep(time.Minute)
			return "250 ok"
		}})
		w.pusher.Pause(true)
		w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n")
		third := w.mail("jansen", "3\r\n")
		w.pusher.Pause(false)
		w.pass(time.Second)
		remove := spool.Act{Action: spool.ActRemove, Items: []spool.Item{{Queue: jansensQueue, ID: third}}, By: "op"}
		if got := w.act(remove); len(got.Busy) != 1 {
			t.Fatalf("%+v", got)
		}
		for got := w.act(remove); got.Done == 0; got = w.act(remove) { // as the cluster does
			w.pass(20 * time.Millisecond)
		}
		if n := len(w.left(jansensQueue, 1)); n != 1 || m.bodies() != "1" {
			t.Fatal(m.bodies()) // the first message ended, and the session with it
		}
		w.pass(10 * time.Minute)
		if w.left(jansensQueue, 0); m.bodies() != "1 2" {
			t.Fatal(m.bodies())
		}
	})
}

func TestSuspendingAllDeliveryEndsEverySessionAfterTheMessageInFlight(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: func(*mxConn, *arrived) string {
			time.Sleep(time.Minute)
			return "250 ok"
		}})
		w.pusher.Pause(true)
		for range 3 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Second)
		stop := spool.Suspend{Scope: spool.ScopeAll, By: "op"}
		if err := w.move(stop, func(m *spool.Moves) error { return m.Suspend(stop) }); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		if w.left(jansensQueue, 2); m.bodies() != "x" {
			t.Fatal(m.bodies())
		}
	})
}

func TestStopDuringTheSearchForAServerIsHeard(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		w.net.silence(jansensServer, true)
		id := w.mail("jansen", "1\r\n")
		w.pass(time.Second)
		if got := w.act(spool.Act{Action: spool.ActRemove, Items: []spool.Item{{Queue: jansensQueue, ID: id}}, By: "op"}); len(got.Busy) != 1 {
			t.Fatalf("%+v", got)
		}
		w.pass(time.Millisecond)
		if q := w.queue("jansen"); q.Claim != nil || q.Failing {
			t.Fatalf("%+v", q)
		}
	})
}

func TestClaimOfAnotherSessionEndsThisOne(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: func(*mxConn, *arrived) string {
			time.Sleep(30 * time.Second)
			return "250 ok"
		}})
		w.pusher.Pause(true)
		for range 3 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Second)
		steal := func(m *spool.Moves) error { // as if this node had slept past its claim
			if _, err := m.Finish(spool.Finish{Queue: jansensQueue, Session: w.queue("jansen").Claim.Session, Outcome: spool.OutcomeDone, SeenTo: 1}); err != nil {
				return err
			}
			_, err := m.Claim(spool.Claim{Queue: jansensQueue, Node: "n2", Session: 7, Until: mail.At(time.Now().Add(time.Hour))})
			return err
		}
		if err := w.move(nil, steal); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		// The first was sent, and that is believed. The second was on its way.
		if w.left(jansensQueue, 2); len(m.got()) > 2 {
			t.Fatal(m.bodies())
		}
		if q := w.queue("jansen"); q.Claim == nil || q.Claim.Node != "n2" {
			t.Fatalf("%+v", q)
		}
	})
}

func TestReportsAreRepeatedWhileTheSpoolIsAway(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, final: func(*mxConn, *arrived) string {
			w.setDown(mail.Fail(mail.Unavailable, "no leader"))
			return "250 ok"
		}})
		w.mail("jansen", "x\r\n")
		w.pass(30 * time.Second)
		w.setDown(nil)
		w.pass(5 * time.Second)
		w.left(jansensQueue, 0)
		if n := w.metric("delivery_duplicates_possible_total"); n != 0 || len(m.got()) != 1 {
			t.Fatal(n)
		}
	})
}

func TestUnreportedMailMayArriveTwiceAndIsCounted(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, final: func(*mxConn, *arrived) string {
			w.setDown(mail.Fail(mail.Unavailable, "no leader"))
			return "250 ok"
		}})
		w.mail("jansen", "x\r\n")
		w.pass(5 * time.Minute)
		if n := w.metric("delivery_duplicates_possible_total"); n != 1 {
			t.Fatal(n)
		}
		w.setDown(nil)
		m.setFinal(nil)
		w.pass(10 * time.Minute) // until the claim has ended
		w.left(jansensQueue, 0)
		if len(m.got()) != 2 {
			t.Fatal(len(m.got()))
		}
	})
}

func (w *world) setDown(err error) {
	w.mu.Lock()
	w.down = err
	w.mu.Unlock()
}

func TestClaimThatIsNotCommittedIsAskedForAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		w.pusher.Pause(true)
		w.mail("jansen", "x\r\n")
		w.setDown(mail.Fail(mail.Unavailable, "no leader"))
		w.pusher.Pause(false)
		w.pass(12 * time.Second)
		w.setDown(nil)
		w.pass(5 * time.Second)
		w.left(jansensQueue, 0)
	})
}

// TestStopEndsInPeace: the message in flight ends and is recorded, the others stay
// and are due at once.
func TestStopEndsInPeace(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: func(*mxConn, *arrived) string {
			time.Sleep(5 * time.Second)
			return "250 ok"
		}})
		w.pusher.Pause(true)
		for range 3 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Second)
		began := time.Now()
		w.stop()
		if took := time.Since(began); took < 4*time.Second || took > 7*time.Second {
			t.Fatal("took", took)
		}
		w.left(jansensQueue, 2)
		q := w.queue("jansen")
		if len(m.got()) != 1 || q.Claim != nil || q.Next > mail.At(time.Now()) || q.LastOutcome != spool.OutcomeDone {
			t.Fatalf("%+v", q)
		}
		w.ended = make(chan struct{})
		w.start()
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
	})
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers, final: func(*mxConn, *arrived) string {
			time.Sleep(5 * time.Minute)
			return "250 ok"
		}})
		w.mail("jansen", "x\r\n")
		w.pass(time.Second)
		began := time.Now()
		w.stop()
		if took := time.Since(began); took > 25*time.Second {
			t.Fatal("took", took)
		}
		w.left(jansensQueue, 1)
	})
}

func TestPauseStopsPushing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.pusher.Pause(true)
		w.mail("jansen", "x\r\n")
		w.pass(time.Hour)
		if len(m.got()) != 0 {
			t.Fatal("pushed")
		}
		w.pusher.Pause(false)
		w.pass(time.Second)
		w.left(jansensQueue, 0)
	})
}

// TestLostHintsLoseNothing: all work is found in the rows.
func TestLostHintsLoseNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		const n = 2500 // more than a page of the schedule, more than the list holds
		for i := range n {
			login := fmt.Sprintf("c%d", i)
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			w.dir.put(mail.Login(login), directory.Account{Addresses: []netip.Addr{a}})
			w.serve(a.String()+":25", &mx{offers: allOffers})
			w.mail(login, "x\r\n")
		}
		w.pusher.wakes.take()
		w.ended = make(chan struct{})
		w.start()
		w.pass(5 * time.Minute)
		var err error
		for q := range (spool.Reader{R: w.db}).Queues("", &err) {
			if q.Messages != 0 {
				t.Fatalf("%+v", q)
			}
		}
		if done := w.metric("delivery_sessions_total", "done"); done != n {
			t.Fatal(done, "sessions")
		}
	})
}

func TestWakesAreBoundedAndKeepTheMostUrgentCause(t *testing.T) {
	w := newWakes(2)
	w.add("account/a", spool.CauseNew)
	w.add("account/a", spool.CauseLogin)
	w.add("account/b", spool.CauseNew)
	w.add("account/c", spool.CauseNew)
	order, _, overflow := w.take()
	if len(order) != 2 || order[0].cause != spool.CauseLogin || !overflow {
		t.Fatal(order, overflow)
	}
	if order, _, overflow := w.take(); len(order) != 0 || overflow {
		t.Fatal(order, overflow)
	}
}

// brokenRows fail in ways that rows do not.
type brokenRows struct {
	Rows
	panics atomic.Bool
	body   error
}

func (b *brokenRows) Messages(q spool.QueueName, after mail.ID, err *error) iter.Seq[spool.Message] {
	if b.panics.Load() {
		panic("a bug")
	}
	return b.Rows.Messages(q, after, err)
}

func (b *brokenRows) Small(id spool.BodyID, size int64) ([]byte, error) {
	if b.body != nil {
		return nil, b.body
	}
	return b.Rows.Small(id, size)
}

func (b *brokenRows) Body(id spool.BodyID) (io.ReadCloser, error) {
	if b.body != nil {
		return nil, b.body
	}
	return b.Rows.Body(id)
}

func TestPanicEndsOneSessionOnly(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		rows := &brokenRows{Rows: w.pusher.Rows}
		rows.panics.Store(true)
		w.pusher.Rows = rows
		w.ended = make(chan struct{})
		w.start()
		m := w.jansen(&mx{offers: allOffers})
		w.keptAfter(time.Second, spool.OutcomeFailed, "internal error")
		if w.metric("delivery_panics_total") != 1 {
			t.Fatal("not counted")
		}
		rows.panics.Store(false)
		w.pass(20 * time.Minute)
		if w.left(jansensQueue, 0); len(m.got()) != 1 {
			t.Fatal(m.got())
		}
	})
}

func TestBodyThatCannotBeReadDefersItsMessageOnly(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		rows := &brokenRows{Rows: w.pusher.Rows, body: errors.New("a bad sector")}
		w.pusher.Rows = rows
		w.ended = make(chan struct{})
		w.start()
		w.jansen(&mx{offers: allOffers})
		w.mail("jansen", "x\r\n")
		w.pass(time.Second)
		left := w.left(jansensQueue, 1)
		if !strings.Contains(left[0].To[0].Last.Text, "a bad sector") || left[0].RetryAt == 0 {
			t.Fatalf("%+v", left)
		}
	})
}

func TestSeveralConnectionsShareAQueue(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, delay: 100 * time.Millisecond})
		w.pusher.Pause(true)
		for range 40 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(10 * time.Second)
		w.left(jansensQueue, 0)
		if len(m.got()) != 40 || m.connections() != 4 {
			t.Fatal(len(m.got()), m.connections())
		}
	}, func(c *Config) { c.ConnectionsPerAccount = 4 })
}

func TestBandwidthIsLimited(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.mail("jansen", strings.Repeat("x", 1_000_000)+"\r\n")
		w.pass(9 * time.Second)
		if len(m.got()) != 0 {
			t.Fatal("too fast")
		}
		w.pass(2 * time.Second)
		w.left(jansensQueue, 0)
	}, func(c *Config) { c.Bandwidth = 100_000 })
}
