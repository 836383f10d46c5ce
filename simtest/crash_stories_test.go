package simtest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"bsmtpd/api/wire"
)

// B23: the power fails at any moment of the node's work, and of what was not
// synced a part is lost. Every 250 is delivered or queued all the same; a second
// copy has its reason. The power fails again and again, also while the node starts.
func TestAPowerFailureLosesNoMail(t *testing.T) {
	for _, seed := range seeds(1, powerSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			StoryOf(t, seed, nil, func(w *World) {
				rng := w.chance.stream("story")
				w.Account("jansen")
				w.AccountWith("pietersen", func(a *wire.Account) { a.Quota = 1 << 20 })
				w.Net.SetLine(w.Server("pietersen").addr, Line{Latency: 100 * time.Millisecond, Rate: 20_000})
				w.Offline("jansen")
				for round := range 4 {
					w.CrashAfter(1 + rng.IntN(150))
					var all sync.WaitGroup
					for range 4 {
						var letters []*Letter
						for range 10 {
							to := [][]string{{"jansen"}, {"pietersen"}, {"jansen", "pietersen"}, {"jansen@" + providerDomain}}[rng.IntN(4)]
							letters = append(letters, w.Write(300+rng.IntN(6000), to...))
						}
						all.Add(1)
						w.Go(func() { defer all.Done(); w.Post(letters...) })
					}
					if round%2 == 1 {
						w.Online("jansen")
						w.TryLogin("jansen", w.Server("jansen").addr)
					}
					w.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
					w.Restart()
					if rng.IntN(3) == 0 { // the power comes back, and fails again at once
						w.die(w.life, w.sharePercent())
						w.bury()
						w.CrashAfter(1 + rng.IntN(30))
						w.Start()
						w.Restart()
					}
					all.Wait()
					if round%2 == 1 {
						w.Offline("jansen")
					}
				}
				w.Online("jansen")
				w.Sleep(time.Minute)
				w.Check()
				w.Drains(time.Hour)
			})
		})
	}
}

// A large message is cut into pieces before it is agreed on. When the power fails
// in the middle, the sender has no 250, and what came of it is dropped in time.
func TestAPowerFailureAmidALargeMessage(t *testing.T) {
	for _, seed := range seeds(1, 4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			StoryOf(t, seed, nil, func(w *World) {
				rng := w.chance.stream("story")
				w.Account("jansen")
				w.Offline("jansen")
				var all sync.WaitGroup
				letters := []*Letter{w.Write(2_000_000, "jansen"), w.Write(700_000, "jansen")}
				w.CrashAfter(20 + rng.IntN(120))
				for _, l := range letters {
					all.Add(1)
					w.Go(func() { defer all.Done(); w.Post(l) })
				}
				w.Sleep(10 * time.Second)
				w.Restart()
				all.Wait()
				w.Check()
				w.Online("jansen")
				w.Drains(30 * time.Minute)
				w.Sleep(2 * time.Hour)
				if n := w.bodies(); n != 0 {
					t.Errorf("%d rows of bodies are left of messages that are gone", n)
				}
			})
		})
	}
}

// bodies counts the rows of bodies and their pieces.
func (w *World) bodies() int {
	w.t.Helper()
	n := 0
	for _, prefix := range []string{"b/", "B/", "g/"} {
		var err error
		for range w.Node().Cluster().Rows().Scan([]byte(prefix), []byte(prefix[:1]+"0"), &err) {
			n++
		}
		w.ok("read the bodies", err)
	}
	return n
}

// SIGTERM in the middle of a push loses nothing and delivers nothing twice: the
// message on the wire may end.
func TestAStopAmidAPushLosesNothing(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		s := w.Account("jansen")
		w.Net.SetLine(s.addr, Line{Latency: 50 * time.Millisecond, Rate: 5000})
		w.Offline("jansen")
		var letters []*Letter
		for range 30 {
			letters = append(letters, w.Write(4000, "jansen"))
		}
		w.ok("post", w.Post(letters...))
		w.Sleep(time.Minute)
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(7 * time.Second)
		began := time.Now()
		w.Stop()
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the stop took %s", took)
		}
		if n := len(s.Got()); n == 0 || n == len(letters) {
			t.Fatalf("%d letters had come; the push should have been at work", n)
		}
		w.Sleep(time.Minute)
		w.Start()
		w.Drains(21 * time.Minute)
		w.Delivered("jansen", letters...)
	})
}

// A sender that vanishes in the middle of a message leaves nothing behind.
func TestASenderThatVanishesLeavesNothing(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.Account("jansen")
		w.Offline("jansen")
		p, err := w.dial()
		w.ok("dial", err)
		for _, line := range []string{"MAIL FROM:<m99@world.example>", "RCPT TO:<a@jansen.example>", "DATA"} {
			if a, err := p.ask(line); err != nil || !a.good() {
				t.Fatalf("%s: %v, %v", line, a, err)
			}
		}
		for range 20 {
			p.c.Write(make([]byte, 100_000))
		}
		w.Net.Silence(senderAddr, true)
		w.Sleep(3 * time.Hour)
		if n := w.bodies(); n != 0 || w.Waiting("account/jansen") != 0 {
			t.Errorf("%d rows of bodies, %d messages", n, w.Waiting("account/jansen"))
		}
		if n := w.life.machine.Open(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		w.Net.Silence(senderAddr, false)
		p.c.Close()
	})
}
