package delivery

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"

	"pgregory.net/rapid"
)

var testLimits = planLimits{Sessions: 4, Background: 3, PerNetwork: 2, MaxWaiting: 1000}

const planStart = mail.Time(1_000_000_000)

func due(q string, c spool.Cause) item {
	return item{Queue: spool.QueueName("account/" + q), Cause: c, At: planStart}
}

func names(items []item) string {
	s := ""
	for _, it := range items {
		s += string(it.Queue.Login()) + " "
	}
	return s
}

func TestLoginGoesBeforeNewMailBeforeTimersBeforeSweep(t *testing.T) {
	p := newPlan(planLimits{Sessions: 9, Background: 9, MaxWaiting: 9})
	for _, it := range []item{due("sweep", spool.CauseSweep), due("timer", spool.CauseTimer), due("new", spool.CauseNew),
		due("operator", spool.CauseOperator), due("login", spool.CauseLogin)} {
		p.Add(planStart, it)
	}
	if got := names(p.Next(planStart)); got != "operator login new timer sweep " {
		t.Fatal(got)
	}
}

func TestAgedTimerPassesFreshLogins(t *testing.T) {
	p := newPlan(planLimits{Sessions: 1, Background: 1, MaxWaiting: 1000})
	p.Add(planStart, due("timer", spool.CauseTimer))
	now := planStart
	for i := range 1000 {
		p.Add(now, due(fmt.Sprintf("login%d", i), spool.CauseLogin))
		got := p.Next(now)
		p.Done(got[0].Queue)
		if got[0].Queue == spool.AccountQueue("timer") {
			if waited := now.Sub(planStart); waited < 4*time.Minute || waited > 6*time.Minute {
				t.Fatal("the timer waited for", waited)
			}
			return
		}
		now = now.Add(time.Second)
	}
	t.Fatal("the timer starved")
}

func TestOldDueTimesDoNotPassALogin(t *testing.T) {
	p := newPlan(planLimits{Sessions: 1, Background: 1, MaxWaiting: 1000})
	for i := range 100 {
		it := due(fmt.Sprintf("timer%d", i), spool.CauseTimer)
		it.At = 1 // due for ages: the node was down
		p.Add(planStart, it)
	}
	p.Add(planStart, due("jansen", spool.CauseLogin))
	if got := names(p.Next(planStart)); got != "jansen " {
		t.Fatal(got)
	}
}

func TestTimersNeverTakeAllPlaces(t *testing.T) {
	p := newPlan(testLimits)
	for i := range 10 {
		p.Add(planStart, due(fmt.Sprintf("timer%d", i), spool.CauseTimer))
	}
	if got := p.Next(planStart); len(got) != 3 {
		t.Fatal("started", names(got))
	}
	p.Add(planStart, due("jansen", spool.CauseLogin))
	if got := names(p.Next(planStart)); got != "jansen " {
		t.Fatal(got)
	}
}

func TestMoreUrgentCauseMovesAWaitingQueueForward(t *testing.T) {
	p := newPlan(planLimits{Sessions: 1, Background: 1, MaxWaiting: 10})
	p.Add(planStart, due("a", spool.CauseTimer))
	p.Add(planStart, due("b", spool.CauseTimer))
	p.Add(planStart, due("b", spool.CauseLogin))
	p.Add(planStart, due("b", spool.CauseSweep)) // changes nothing
	got := p.Next(planStart)
	if names(got) != "b " || got[0].Cause != spool.CauseLogin {
		t.Fatal(got)
	}
}

func TestAddToARunningQueueIsToldByDone(t *testing.T) {
	p := newPlan(testLimits)
	p.Add(planStart, due("a", spool.CauseNew))
	p.Next(planStart)
	p.Add(planStart, due("a", spool.CauseNew))
	p.Add(planStart, due("a", spool.CauseLogin))
	if again := p.Done(spool.AccountQueue("a")); again != spool.CauseLogin {
		t.Fatal(again)
	}
	if again := p.Done(spool.AccountQueue("a")); again != spool.CauseNone {
		t.Fatal(again)
	}
}

func TestFullListRefuses(t *testing.T) {
	p := newPlan(planLimits{Sessions: 1, Background: 1, MaxWaiting: 2})
	if !p.Add(planStart, due("a", 20)) || !p.Add(planStart, due("b", 20)) || p.Add(planStart, due("c", 10)) {
		t.Fatal("want two to fit")
	}
	if !p.Add(planStart, due("a", 10)) {
		t.Fatal("one that waits already needs no room")
	}
}

func TestFullNetworkWaitsOthersPass(t *testing.T) {
	p := newPlan(testLimits)
	for i := range 3 {
		it := due(fmt.Sprintf("a%d", i), spool.CauseLogin)
		it.Network = netip.MustParsePrefix("192.0.2.0/24")
		p.Add(planStart, it)
	}
	p.Add(planStart, due("b", spool.CauseTimer))
	if got := names(p.Next(planStart)); got != "a0 a1 b " {
		t.Fatal(got)
	}
	p.Done(spool.AccountQueue("a0"))
	if got := names(p.Next(planStart)); got != "a2 " {
		t.Fatal(got)
	}
}

func TestFutureQueueWaitsForItsTime(t *testing.T) {
	p := newPlan(testLimits)
	it := due("a", spool.CauseNew)
	it.At = planStart.Add(time.Minute)
	p.Add(planStart, it)
	if got := p.Next(planStart); len(got) != 0 || p.Wait(planStart) != it.At {
		t.Fatal(got, p.Wait(planStart))
	}
	if got := p.Next(it.At); len(got) != 1 {
		t.Fatal(got)
	}
}

// TestPlanKeepsItsPromises drives a plan with random steps beside a slow model
// that looks at every queue each time.
func TestPlanKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPlan(testLimits)
		now := planStart
		added := map[spool.QueueName]item{} // waiting, by the model
		active := map[spool.QueueName]item{}
		networks := []netip.Prefix{{}, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += mail.Time(rapid.IntRange(0, 100_000_000).Draw(t, "pass"))
			switch rapid.IntRange(0, 3).Draw(t, "do") {
			case 0, 1:
				n := rapid.IntRange(0, 15).Draw(t, "queue")
				it := item{Queue: spool.QueueName(fmt.Sprintf("account/q%d", n)), Network: networks[n%3],
					Cause: rapid.SampledFrom([]spool.Cause{10, 11, 20, 30, 40}).Draw(t, "cause"),
					At:    now + mail.Time(rapid.IntRange(-50_000_000, 50_000_000).Draw(t, "at"))}
				p.Add(now, it)
				if _, ok := active[it.Queue]; ok {
					break
				}
				if old, ok := added[it.Queue]; ok {
					it.Cause, it.At = moreUrgent(old.Cause, it.Cause), min(old.At, it.At)
				}
				added[it.Queue] = it
			case 2:
				for _, it := range p.Next(now) {
					want, ok := added[it.Queue]
					if !ok || want.Cause != it.Cause || want.At > now {
						t.Fatalf("started %v, the model has %v", it, want)
					}
					delete(added, it.Queue)
					active[it.Queue] = it
				}
				checkBusy(t, now, added, active)
			case 3:
				for _, it := range sortedItems(active) {
					p.Done(it.Queue)
					delete(active, it.Queue)
					break
				}
			}
			if len(p.waiting) != len(added) || len(p.running) != len(active) {
				t.Fatalf("%d waiting, %d running; the model has %d and %d", len(p.waiting), len(p.running), len(added), len(active))
			}
		}
		for range 1000 { // liveness: everything gets its turn
			for q := range active {
				p.Done(q)
				delete(active, q)
			}
			if len(added) == 0 {
				return
			}
			now = p.Wait(now)
			for _, it := range p.Next(now) {
				delete(added, it.Queue)
				active[it.Queue] = it
			}
		}
		t.Fatalf("never started: %v", added)
	})
}

// checkBusy fails if a limit is passed, or if a queue waits that no limit stops.
func checkBusy(t *rapid.T, now mail.Time, added, active map[spool.QueueName]item) {
	nets, slow := map[netip.Prefix]int{}, 0
	for _, it := range active {
		nets[it.Network]++
		if classOf(it.Cause) == background {
			slow++
		}
	}
	if len(active) > testLimits.Sessions || slow > testLimits.Background {
		t.Fatalf("%d sessions, %d in the background", len(active), slow)
	}
	for n, c := range nets {
		if n.IsValid() && c > testLimits.PerNetwork {
			t.Fatalf("%d sessions to %v", c, n)
		}
	}
	for _, it := range added {
		blocked := it.At > now || len(active) == testLimits.Sessions ||
			classOf(it.Cause) == background && slow == testLimits.Background ||
			it.Network.IsValid() && nets[it.Network] == testLimits.PerNetwork
		if !blocked {
			t.Fatalf("%v waits, and nothing stops it", it)
		}
	}
}

func sortedItems(m map[spool.QueueName]item) []item {
	var out []item
	for i := range 16 {
		if it, ok := m[spool.QueueName(fmt.Sprintf("account/q%d", i))]; ok {
			out = append(out, it)
		}
	}
	return out
}

func BenchmarkLoginStorm(b *testing.B) {
	for b.Loop() {
		p := newPlan(planLimits{Sessions: 200, Background: 150, PerNetwork: 20, MaxWaiting: 200_000})
		for i := range 100_000 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			n, _ := a.Prefix(24)
			p.Add(planStart, item{Queue: spool.QueueName(fmt.Sprintf("account/q%d", i)), Cause: spool.CauseLogin, At: planStart, Network: n})
		}
		for started := 0; started < 100_000; {
			for _, it := range p.Next(planStart) {
				started++
				p.Done(it.Queue)
			}
		}
	}
}

func TestPlanIsCrowdedWhileADueQueueWaits(t *testing.T) {
	limits := testLimits
	limits.Sessions = 1
	p := newPlan(limits)
	later := due("later", spool.CauseTimer)
	later.At = planStart.Add(time.Hour)
	p.Add(planStart, later)
	p.Add(planStart, due("a", spool.CauseLogin))
	if p.Next(planStart); p.Crowded() {
		t.Fatal("crowded by a queue that is not due")
	}
	p.Add(planStart, due("b", spool.CauseLogin))
	if p.Next(planStart); !p.Crowded() {
		t.Fatal("b waits, and it is not crowded")
	}
	p.Done(spool.AccountQueue("a"))
	if p.Next(planStart); p.Crowded() {
		t.Fatal("crowded, and nobody waits")
	}
}
