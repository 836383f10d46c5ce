package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/config"
	"bsmtpd/mail"
)

// TestWorld lets worlds live for some time with everything that can happen, by
// chance.
// The promises are checked all the time; then everything is healed, and all that
// waits must arrive.
//
// A world that failed says its seed; -seed N lets it live again.
func TestWorld(t *testing.T) {
	for _, s := range seeds(*from, *from+*worlds-1) {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			t.Parallel()
			StoryOf(t, s, townConfig(s), func(w *World) {
				town := newTown(w)
				town.live(lifeSpan(s))
				town.heal()
				t.Log(w.Summary())
				t.Log(w.Coverage())
			})
		})
	}
}

// townConfig draws settings that change how pushes go. Every third world has the
// standard ones.
func townConfig(seed uint64) func(*config.Config) {
	return func(c *config.Config) {
		if seed%3 == 0 {
			return
		}
		rng := chance(seed).stream("config")
		d := &c.Delivery
		d.ConnectionsPerAccount = []int{1, 1, 3}[rng.IntN(3)]
		d.WindowMessages = []int{1, 3, 100}[rng.IntN(3)]
		d.ClaimLife = []time.Duration{30 * time.Second, 10 * time.Minute}[rng.IntN(2)]
		d.Linger = []time.Duration{0, 200 * time.Millisecond, 20 * time.Second}[rng.IntN(3)]
		d.SessionLimit = []time.Duration{5 * time.Second, time.Hour}[rng.IntN(2)]
		d.ReportEvery = []time.Duration{time.Millisecond, 50 * time.Millisecond, 2 * time.Second}[rng.IntN(3)]
		d.SessionsPerNetwork = []int{2, 20}[rng.IntN(2)]
		c.SMTPD.SpillAt = 16 << 10
	}
}

// town is a random world's people.
type town struct {
	w     *World
	rng   *rand.Rand
	home  *Server // of those who write
	names []string
	mail  sync.WaitGroup
	ends  []func() // of faults, in the order in which they are to end
	at    []time.Time
	held  map[string]bool

	breaks *disk // that is to fail
}

func newTown(w *World) *town {
	c := &town{w: w, rng: w.chance.stream("town"), held: map[string]bool{}}
	w.journal.excuse("space is short")
	w.journal.excuse("the end of a push session could not be recorded")
	c.home = w.Elsewhere(worldDomain)
	for _, name := range []string{"jansen", "pietersen", "devries", "bakker", "visser", "mulder"} {
		w.AccountWith(name, func(a *wire.Account) {
			if name == "mulder" {
				a.Quota = 20_000
			}
		})
		c.names = append(c.names, name)
	}
	w.Net.SetLine(w.Server("visser").addr, Line{Latency: 300 * time.Millisecond, Rate: 4000})
	w.Net.SetLine(w.Server("bakker").addr, Line{Latency: 80 * time.Millisecond, Rate: 30_000})
	w.Server("devries").Behave(Manner{PIX: true})
	return c
}

func (c *town) someone() string { return c.names[c.rng.IntN(len(c.names))] }

func (c *town) server() *Server { return c.w.Server(c.someone()) }

// between draws a time.
func (c *town) between(least, most time.Duration) time.Duration {
	return least + time.Duration(c.rng.Int64N(int64(most-least)))
}

// live lets things happen for a time.
func (c *town) live(d time.Duration) {
	events := []struct {
		often int
		what  func()
	}{
		{40, c.letters}, {20, c.line}, {8, c.manners}, {6, c.resets}, {4, c.oneWay}, {8, c.refusal}, {8, c.loginAgain},
		{6, c.crash}, {2, c.restart}, {3, c.fullDisk}, {4, c.removal}, {4, c.hold}, {3, c.retry}, {2, c.noDNS}, {3, c.awayFromHome},
		{5, c.vanishes}, {5, c.radius}, {1, c.accessRestarts}, {1, c.brokenDisk}, {2, c.clock},
	}
	total := 0
	for _, e := range events {
		total += e.often
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.pass(time.Duration(c.rng.ExpFloat64() * float64(3*time.Minute)))
		n := c.rng.IntN(total)
		for _, e := range events {
			if n -= e.often; n < 0 {
				e.what()
				break
			}
		}
	}
}

// pass lets time pass, ends faults when their time has come, and brings a node
// back whose power failed.
func (c *town) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		next := end
		for _, at := range c.at {
			if at.Before(next) {
				next = at
			}
		}
		c.w.Sleep(time.Until(next))
		for i := 0; i < len(c.at); {
			if c.at[i].After(time.Now()) {
				i++
				continue
			}
			over := c.ends[i]
			c.at, c.ends = append(c.at[:i:i], c.at[i+1:]...), append(c.ends[:i:i], c.ends[i+1:]...)
			over()
		}
		if c.w.down() && !c.w.crashed() && c.w.life.disk.broken.Load() == nil {
			c.w.Fatalf("the node has ended by itself: %v", c.w.life.err)
		}
		if c.w.crashed() {
			c.w.bury()
			c.w.Sleep(c.between(0, 5*time.Minute))
			c.w.Restart()
		}
		if !time.Now().Before(end) {
			return
		}
	}
}

// until ends a fault after a time.
func (c *town) until(d time.Duration, over func()) {
	c.at, c.ends = append(c.at, time.Now().Add(d)), append(c.ends, over)
}

// letters are written and posted, again and again until they are taken or refused
// for good.
func (c *town) letters() {
	var letters []*Letter
	for range 1 + c.rng.IntN(6) {
		var to []string
		for range 1 + c.rng.IntN(2) {
			switch name := c.someone(); c.rng.IntN(12) {
			case 0:
				to = append(to, "nobody@"+name+".example")
			case 1:
				to = append(to, name+"@"+providerDomain)
			default:
				to = append(to, name)
			}
		}
		size := 300 + c.rng.IntN(3000)
		if c.rng.IntN(40) == 0 {
			size = 300_000
		}
		letters = append(letters, c.w.Write(size, unique(to)...))
	}
	waits := []time.Duration{c.between(time.Minute, 10*time.Minute), c.between(5*time.Minute, 30*time.Minute), c.between(10*time.Minute, time.Hour)}
	c.mail.Add(1)
	c.w.Go(func() {
		defer c.mail.Done()
		for _, wait := range waits {
			c.w.Post(letters...)
			var again []*Letter
			for _, l := range letters {
				if !l.Taken() && !strings.HasPrefix(l.Said(), "5") {
					again = append(again, l)
				}
			}
			if letters = again; len(letters) == 0 || !c.w.Pause(wait) {
				return
			}
		}
	})
}

func unique(in []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// line is a customer's line that goes down or comes up, mostly with RADIUS telling.
func (c *town) line() {
	name := c.someone()
	if c.w.isOffline(name) {
		c.w.Online(name)
		if c.rng.IntN(5) > 0 {
			c.w.TryLogin(name, c.w.Server(name).addr)
		}
		return
	}
	c.w.fault("a customer's line goes down")
	c.w.Offline(name)
	if c.rng.IntN(2) == 0 {
		c.w.tryLogout(name)
	}
}

func (c *town) loginAgain() {
	name := c.someone()
	c.w.TryLogin(name, c.w.Server(name).addr)
}

// manners lets a server behave strangely for a while.
func (c *town) manners() {
	stages := []string{atConnect, atGreet, atHello, atMail, atRcpt, atData, atBody, atDot, atKept, atQuit}
	stage := stages[c.rng.IntN(len(stages))]
	chance := 0.05 + c.rng.Float64()/2
	m := []Manner{
		{Plain: true}, {Slow: true}, {PIX: true}, {PerConn: 1 + c.rng.IntN(4)}, {Grey: 5 * time.Minute}, {Delay: 500 * time.Millisecond},
		{Drop: stage, Chance: chance}, {Drop: stage, Chance: chance}, {Hang: stage, Chance: chance},
		{Say: map[string]string{stage: "451 4.3.0 not now"}, Chance: chance},
		{Say: map[string]string{stage: "nonsense"}, Chance: chance},
		{Say: map[string]string{stage: "421 4.3.2 going down"}, Chance: chance},
		{Say: map[string]string{atRcpt: "552 5.2.2 full"}, Chance: chance},
	}[c.rng.IntN(13)]
	s := c.server()
	c.w.Note("server %s behaves: %+v", s.name, m)
	s.Behave(m)
	c.until(c.between(time.Minute, 2*time.Hour), func() { s.Behave(Manner{}) })
}

func (c *town) resets() {
	s := c.server()
	c.w.Note("connections of %s are reset", s.name)
	c.w.fault("connections are reset")
	c.w.Net.Reset(s.addr)
}

func (c *town) oneWay() {
	from, to := nodeAddr, c.server().addr
	if c.rng.IntN(2) == 0 {
		from, to = to, from
	}
	c.w.Note("nothing passes from %s to %s", from, to)
	c.w.fault("nothing passes in one direction")
	c.w.Net.Cut(from, to, true)
	c.until(c.between(time.Second, 40*time.Minute), func() { c.w.Net.Cut(from, to, false) })
}

func (c *town) refusal() {
	name := c.someone()
	c.w.fault("a server refuses connections")
	c.w.Refuses(name, true)
	c.until(c.between(time.Minute, 3*time.Hour), func() { c.w.Refuses(name, false) })
}

func (c *town) awayFromHome() {
	c.w.fault("the senders' server is not to be reached")
	c.w.Net.Silence(c.home.addr, true)
	c.until(c.between(time.Minute, 5*time.Hour), func() { c.w.Net.Silence(c.home.addr, false) })
}

func (c *town) noDNS() {
	c.w.fault("DNS is down")
	c.w.DNS.Down(true)
	c.until(c.between(time.Minute, time.Hour), func() { c.w.DNS.Down(false) })
}

// crash lets the power fail some changes of the disk from now; see pass.
func (c *town) crash() {
	if c.w.life == nil || c.w.life.disk.broken.Load() == nil { // one fault of the disk at a time
		c.w.CrashAfter(1 + c.rng.IntN(60))
	}
}

func (c *town) restart() {
	if c.w.down() {
		return
	}
	if c.quiet(); c.w.down() {
		return // pass starts it
	}
	c.w.fault("the node is stopped and started")
	c.w.Stop()
	c.w.Sleep(c.between(0, 3*time.Minute))
	c.w.Start()
}

func (c *town) fullDisk() {
	low := c.w.Config.Node.LowSpace
	free := uint64(low.SoftBytes)
	if c.rng.IntN(3) == 0 {
		free = uint64(low.HardBytes)
	}
	c.w.fault("the disk is full")
	c.w.DiskFree(free - 1)
	c.w.watch.off = true
	c.until(c.between(time.Minute, 20*time.Minute), func() {
		c.w.DiskFree(diskBytes / 2)
		c.w.watch.off = false
	})
}

// removal takes some of what waits out of the queues.
func (c *town) removal() {
	if c.w.down() {
		return
	}
	var ids []mail.ID
	for m := range c.w.messages() {
		if c.rng.IntN(4) == 0 && !m.From.IsNull() && len(ids) < 5 {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) > 0 {
		if err := c.w.TryRemove(ids...); err != nil {
			c.w.Note("not removed: %v", err)
		}
	}
}

func (c *town) hold() {
	name := c.someone()
	if c.held[name] {
		return
	}
	err := c.w.operate(func(ctx context.Context, a *client.Client) error {
		return a.HoldQueue(ctx, "account/"+name, wire.QueueHold{Reason: "by chance"})
	})
	c.w.Note("hold %s: %v", name, err)
	c.held[name] = true
	c.until(c.between(time.Minute, 2*time.Hour), func() { c.release(name) })
}

// release tries until it succeeds: a hold has no end of its own.
func (c *town) release(name string) {
	err := c.w.operate(func(ctx context.Context, a *client.Client) error { return a.ReleaseQueue(ctx, "account/"+name) })
	c.w.Note("release %s: %v", name, err)
	if err != nil && mail.KindOf(err) != mail.NotFound {
		c.until(time.Minute, func() { c.release(name) })
		return
	}
	delete(c.held, name)
}

func (c *town) retry() {
	name := c.someone()
	err := c.w.operate(func(ctx context.Context, a *client.Client) error {
		_, err := a.RetryQueue(ctx, "account/"+name)
		return err
	})
	c.w.Note("retry %s: %v", name, err)
}

// heal ends everything that is wrong, and expects that all arrives.
func (c *town) heal() {
	w := c.w
	w.Note("everything is healed")
	for len(c.at) > 0 {
		over := c.ends[0]
		c.at, c.ends = c.at[1:], c.ends[1:]
		over()
		c.pass(0)
	}
	if c.quiet(); !w.crashed() {
		w.life.disk.fuse.Store(0)
	}
	w.wrong.Store(0)
	c.pass(0)
	w.Net.Heal()
	for _, s := range w.servers {
		s.Behave(Manner{})
	}
	c.mail.Wait()
	// Mail to the world may wait for four hours after so many failures.
	w.Retry("out/" + worldDomain)
	w.Drains(30 * time.Minute)
}
