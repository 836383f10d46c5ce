package ordeal

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"bsmtpd/api/wire"
)

// operator does what operators do to queued messages, until stop is closed. What
// he is told goes into the ledger.
func operator(s *server, l *ledger, r *rand.Rand, stop chan struct{}) {
	act := func(action, id string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		p, err := s.api.Act(ctx, wire.Action{Action: action, IDs: []string{id}, Reason: "ordeal"}, nil)
		if err == nil && p.Failed > 0 {
			err = fmt.Errorf("%v", p.Errors)
		}
		return err
	}
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(60)) * time.Millisecond):
		}
		e := l.some(r)
		if e == nil {
			continue
		}
		switch r.IntN(3) {
		case 0:
			l.with(func() { e.unsure = true })
			if act("remove", e.id) == nil {
				l.with(func() { e.removed = time.Now() })
			}
		case 1:
			if act("hold", e.id) == nil {
				l.with(func() { e.held = time.Now() })
			}
		case 2:
			l.with(func() { e.held = time.Time{} })
			act("release", e.id)
		}
	}
}

func (l *ledger) with(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}

// some gives one of the newest messages that were acknowledged; it may have been
// delivered already. Now and then it is one that is held.
func (l *ledger) some(r *rand.Rand) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 100 {
		e := l.entries[max(1, len(l.entries)-r.IntN(200))]
		if e != nil && e.id != "" && e.removed.IsZero() && (e.held.IsZero() || r.IntN(10) == 0) {
			return e
		}
	}
	return nil
}

// access tells logins until stop is closed.
func access(s *server, customers []*customer, r *rand.Rand, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(40)) * time.Millisecond):
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s.api.SendLogin(ctx, wire.LoginEvent{Login: customers[r.IntN(len(customers))].login, Event: []string{"start", "stop"}[r.IntN(2)],
			NAS: "nas1", Session: fmt.Sprint(n / 2)})
		cancel()
	}
}

// release lifts every hold that the operator has made or may have made.
func release(t testing.TB, s *server, l *ledger) {
	t.Helper()
	l.with(func() {
		for e := range maps.Values(l.entries) {
			e.held = time.Time{}
		}
	})
	if _, err := s.api.Act(context.Background(), wire.Action{Action: "release", Filter: &wire.Filter{State: "hold"}, All: true}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestKilledAgainAndAgainItKeepsEveryPromise takes the server away at moments of
// chance, mostly with kill -9, now and then with SIGTERM, now and then while it
// starts.
func TestKilledAgainAndAgainItKeepsEveryPromise(t *testing.T) {
	s := newServer(t, filepath.Join(t.TempDir(), "data"), settings{"node.raft.snapshot_bytes": "8MiB", "node.store.memtable_size": "4MiB"})
	s.excused = []string{"a message could not be stored"} // when it stops
	s.start()
	led, r := newLedger(), chance(1)
	customers := newCustomers(t, s, led, 6)
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: sizes, pause: func(r *rand.Rand) int { return r.IntN(60) }}
	in.send(6)
	stop := make(chan struct{})
	done := make(chan struct{}, 3)
	for _, part := range []func(){
		func() { live(t, customers, chance(2), stop) },
		func() { operator(s, led, chance(3), stop) },
		func() { access(s, customers, chance(4), stop) },
	} {
		go func() { part(); done <- struct{}{} }()
	}
	terms, early := 0, 0
	for n := 0; n < *kills; {
		time.Sleep(time.Duration(100+r.IntN(1000)) * time.Millisecond)
		switch k := r.IntN(10); {
		case k == 0:
			terms++
			s.stop()
		case k < 3:
			s.kill()
			s.launch()
			time.Sleep(time.Duration(r.IntN(250)) * time.Millisecond)
			s.kill()
			early++
			n += 2
		default:
			s.kill()
			n++
		}
		s.start()
	}
	time.Sleep(time.Second)
	in.end()
	close(stop)
	for range cap(done) {
		<-done
	}
	for _, c := range customers {
		c.on(t)
	}
	release(t, s, led)
	s.drain()
	s.stop()
	t.Logf("%d kills, %d of them during a start; %d times asked to stop", len(s.kills), early, terms)
	led.audit(t, s)
	if n := led.acked(); n < 20**kills {
		t.Errorf("only %d messages were acknowledged: this was no load", n)
	}
}
