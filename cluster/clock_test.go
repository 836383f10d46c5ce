package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// wrongClock is a wall clock that is wrong by some time.
type wrongClock struct{ by atomic.Int64 }

func (w *wrongClock) wrong(by time.Duration) { w.by.Store(int64(by)) }
func (w *wrongClock) now() time.Time         { return time.Now().Add(time.Duration(w.by.Load())) }

// clockStory runs a test in a bubble, where the monotonic clock is faked.
func clockStory(t *testing.T, machine time.Duration, tell func(w *wrongClock, c *clock, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := &wrongClock{}
		tell(w, newClock(w.now, mail.At(time.Now().Add(machine)), slog.New(slog.NewTextHandler(&log, nil)), newClockMetrics(metric.New())), &log)
	})
}

// ahead is how far c is ahead of the right time.
func ahead(c *clock) time.Duration { return c.now().Sub(mail.At(time.Now())) }

func wantAhead(t *testing.T, c *clock, want time.Duration) {
	t.Helper()
	if got := ahead(c); got < want-time.Microsecond || got > want+time.Microsecond {
		t.Errorf("the clock is %s ahead, want %s", got, want)
	}
}

func TestALeapOfTheWallClockThatIsPutRightLeavesNoTrace(t *testing.T) {
	clockStory(t, 0, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		time.Sleep(time.Hour)
		wantAhead(t, c, 0)
		w.wrong(7 * 24 * time.Hour)
		for range 9 {
			wantAhead(t, c, 0)
			time.Sleep(time.Minute)
		}
		w.wrong(0)
		wantAhead(t, c, 0)
		if n := strings.Count(log.String(), "leapt ahead"); n != 1 {
			t.Errorf("told %d times: %s", n, log)
		}
		w.wrong(7 * 24 * time.Hour) // the doubt begins anew
		wantAhead(t, c, 0)
		time.Sleep(9 * time.Minute)
		wantAhead(t, c, 0)
	})
}

func TestALeapThatLastsIsBelievedAndAfterwardsTimeRunsOn(t *testing.T) {
	clockStory(t, 0, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		w.wrong(24 * time.Hour)
		c.now()
		time.Sleep(leapDoubt)
		wantAhead(t, c, 24*time.Hour)
		w.wrong(0)
		wantAhead(t, c, 24*time.Hour)
		for range 64 { // however often it is asked
			time.Sleep(time.Minute)
			c.now()
		}
		wantAhead(t, c, 24*time.Hour-time.Minute)
		if n := strings.Count(log.String(), "ahead of the wall clock"); n != 2 {
			t.Errorf("told %d times in an hour: %s", n, log)
		}
		time.Sleep(64 * 24 * time.Hour)
		wantAhead(t, c, 0)
	})
}

func TestAClockThatIsSetBackOrALittleAhead(t *testing.T) {
	clockStory(t, 0, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		w.wrong(30 * time.Second)
		wantAhead(t, c, 30*time.Second)
		w.wrong(-time.Hour)
		wantAhead(t, c, 30*time.Second)
		time.Sleep(32 * time.Minute)
		wantAhead(t, c, 0)
		time.Sleep(time.Minute)
		wantAhead(t, c, -time.Minute/slowdown) // it waits for the wall clock, the only one there is
	})
}

func TestARestartGoesOnFromTheMachinesTime(t *testing.T) {
	clockStory(t, time.Hour, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		wantAhead(t, c, time.Hour)
		c.now()
		if !strings.Contains(log.String(), "ahead of the wall clock") {
			t.Error("nobody was told")
		}
		time.Sleep(64 * time.Minute)
		wantAhead(t, c, 59*time.Minute)
	})
	clockStory(t, -7*24*time.Hour, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		wantAhead(t, c, 0) // it was down for a week
		if log.Len() > 0 {
			t.Error(log)
		}
	})
}

func TestAnEntryFromTheFutureTakesTheClockAlong(t *testing.T) {
	clockStory(t, 0, func(w *wrongClock, c *clock, log *bytes.Buffer) {
		c.applied(mail.At(time.Now().Add(time.Second)))
		if log.Len() > 0 {
			t.Error(log)
		}
		c.applied(mail.At(time.Now().Add(2 * time.Hour)))
		wantAhead(t, c, 2*time.Hour)
		if !strings.Contains(log.String(), "carries a time far ahead") {
			t.Error("nobody was told")
		}
	})
}

func TestTheClockNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 9))
		w := &wrongClock{}
		c := newClock(w.now, 0, slog.New(slog.DiscardHandler), newClockMetrics(metric.New()))
		last := c.now()
		for range 5000 {
			switch rng.IntN(4) {
			case 0:
				w.wrong(time.Duration(rng.Int64N(int64(8*time.Hour))) - 4*time.Hour)
			case 1:
				c.applied(last.Add(time.Duration(rng.Int64N(int64(10*time.Minute))) - 9*time.Minute))
			default:
				spent := time.Duration(rng.Int64N(int64(15 * time.Minute)))
				before := c.now()
				time.Sleep(spent)
				if got := c.now().Sub(before); got < spent-spent/slowdown-time.Microsecond {
					t.Fatalf("in %s the clock went on by %s", spent, got)
				}
			}
			now := c.now()
			if now < last {
				t.Fatalf("from %d back to %d", last, now)
			}
			last = now
		}
	})
}

// The machine's time is in the rows: after a wrong clock and a restart, what was
// made then is neither over nor in the future.
func TestANodeWhoseClockWasWrongGoesOnAfterARestart(t *testing.T) {
	w := newWorld(t)
	wall := &wrongClock{}
	restart := func() {
		t.Helper()
		if err := w.node.Close(); err != nil {
			t.Fatal(err)
		}
		h, o := w.options(false)
		o.Wall = wall.now
		n, err := Open(h, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		w.node = n
	}
	w.account("jansen", 1<<20)
	wall.wrong(24 * time.Hour)
	restart()
	if _, err := w.mail("x", "jansen"); err != nil {
		t.Fatal(err)
	}
	wall.wrong(0)
	restart()
	q, _, err := w.node.Spool().Queue("account/jansen")
	if err != nil {
		t.Fatal(err)
	}
	if now := w.node.Now(); q.Next > now || now.Sub(mail.At(time.Now())) < 23*time.Hour {
		t.Errorf("the queue is due at %d, and now is %d", q.Next, now)
	}
	due, err := w.node.Spool().Due(w.node.Now(), 10)
	if err != nil || len(due) != 1 {
		t.Errorf("due: %v, %v", due, err)
	}
	got, err := w.node.Claim(t.Context(), spool.Claim{Queue: "account/jansen", Node: "n1", Session: 7, Until: w.node.Now().Add(10 * time.Minute)})
	if err != nil || got.Denial != spool.Granted {
		t.Fatalf("%+v, %v", got, err)
	}
	if q, _, _ := w.node.Spool().Queue("account/jansen"); q.Claim == nil || q.Claim.Until <= w.node.Now() {
		t.Errorf("the claim is over when it begins: %+v", q.Claim)
	}
	if err := w.node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.node.Close(); err != nil { // a second one does no harm
		t.Fatal(err)
	}
}
