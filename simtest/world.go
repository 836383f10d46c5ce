// Package simtest runs the whole product in a made-up world and checks its
// promises.
//
// A World has a network, a name service and a disk that exist in memory only, a
// real node.Node on them, customers' mail servers that can be offline, slow, rude
// or mad, senders who keep a ledger of every 250 they were given, and an access
// server that speaks RADIUS. It lives in a testing/synctest bubble, so a day
// passes in about a second, and what a story tells in simulated time is exact.
//
// World's methods are the words of stories: w.Offline("jansen"), w.Mail(3),
// w.Login("jansen"), w.Crash(). At its end every story is checked against the
// promises of doc/promises.md, see check.go.
//
// What is drawn by chance comes from the seed. Goroutines are scheduled by the
// runtime, so two runs of one seed have the same faults and the same work, but
// not every step in the same order.
package simtest

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/config"
	"bsmtpd/mail"
)

// The provider's side of the world.
var (
	nodeAddr   = netip.MustParseAddr("192.0.2.1")
	accessAddr = netip.MustParseAddr("192.0.2.200")
	senderAddr = netip.MustParseAddr("198.51.100.10")
)

const (
	nodeName       = "mx.provider.example"
	providerDomain = "provider.example"
	worldDomain    = "world.example" // where letters come from
	dataDir        = "/data"
	radiusSecret   = "a secret of this world"
)

// World is everything there is. Its methods are called by one goroutine, the
// story's, where nothing else is said.
type World struct {
	Seed uint64
	Net  *Net
	DNS  *DNS

	// Config is what a node is started with.
	Config *config.Config

	t       testing.TB
	chance  chance
	journal *journal
	senders *Machine
	access  *Machine
	servers []*Server
	logins  map[mail.Login]*customer
	first   mail.Login // the account that is meant where none is named

	disk   *disk
	life   *life   // the node that runs; nil: none does
	gone   []*life // those before it
	ledger ledger
	watch  watch
	faults tally

	wrong atomic.Int64 // by how much the node's wall clock is
	leaps []time.Time  // when that was changed

	beside sync.WaitGroup // what Go has begun
	over   chan struct{}  // closed when the story has ended

	fuse    int64        // change of the disk at which the next node's power fails; 0: none
	session int          // RADIUS sessions so far
	boots   atomic.Int64 // of the access server

	mu      sync.Mutex            // guards removed
	removed map[mail.ID]time.Time // when; the zero time: it was brought back
}

// customer is an account with its server.
type customer struct {
	server  *Server
	domain  mail.Domain
	session string      // of RADIUS; empty: not online
	asked   []time.Time // logins
}

// Story tells a story in a new world with a node that runs, and checks it.
func Story(t *testing.T, tell func(w *World)) { StoryOf(t, 1, nil, tell) }

// StoryOf is Story with a seed, and with settings that differ from the standard.
func StoryOf(t *testing.T, seed uint64, configure func(*config.Config), tell func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		defer w.end()
		if configure != nil {
			configure(w.Config)
		}
		w.Start()
		tell(w)
		w.Check()
	})
}

func newWorld(t testing.TB, seed uint64) *World {
	w := &World{Seed: seed, Net: NewNet(), DNS: NewDNS(), Config: worldConfig(), t: t, chance: chance(seed), journal: newJournal(),
		logins: map[mail.Login]*customer{}, disk: newDisk(), removed: map[mail.ID]time.Time{}, over: make(chan struct{})}
	w.ledger.letters = map[int]*Letter{}
	w.watch.attended = map[string]attention{}
	w.senders = w.Net.Machine(senderAddr)
	w.access = w.Net.Machine(accessAddr)
	w.disk.setFree(diskBytes / 2)
	return w
}

// Go does something beside the story. Where it sleeps it is by Pause.
func (w *World) Go(f func()) { w.beside.Go(f) }

// Pause waits for a time; false: the story has ended meanwhile.
func (w *World) Pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.over:
		return false
	}
}

// end takes the world down, so that no goroutine is left in the bubble.
func (w *World) end() {
	close(w.over)
	if w.life != nil {
		w.life.cancel()
		w.gone = append(w.gone, w.life)
	}
	for _, s := range w.servers {
		s.machine.Fail(false)
	}
	w.senders.Fail(false)
	w.access.Fail(false)
	w.beside.Wait()
	for _, l := range w.gone {
		<-l.ended
	}
	if w.t.Failed() {
		w.t.Logf("the seed is %d; the last of what happened:\n%s", w.Seed, w.journal.tail(300))
	}
}

// Errorf fails the test and goes on. It says when in the world it was.
func (w *World) Errorf(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("%s: %s", w.Now(), fmt.Sprintf(format, args...))
}

// Fatalf fails the test and ends the story.
func (w *World) Fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s", w.Now(), fmt.Sprintf(format, args...))
}

// Now is the day and time in the world, which begins at day 0.
func (w *World) Now() string { return day(time.Now()) }

func day(t time.Time) string {
	d := t.Sub(beginning)
	return fmt.Sprintf("day %d %s", d/(24*time.Hour), beginning.Add(d).UTC().Format("15:04:05.000"))
}

// beginning is where synctest lets time begin.
var beginning = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Note writes into the journal what the story does.
func (w *World) Note(format string, args ...any) {
	w.journal.add("story", fmt.Sprintf(format, args...))
}

// Sleep lets time pass, and then whatever is under way come to rest. On the way
// it looks every minute whether any queue is forgotten.
func (w *World) Sleep(d time.Duration) {
	synctest.Wait()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Until(end), time.Minute))
		synctest.Wait()
		w.look()
	}
}

// SleepUntil lets time pass until something is so, or fails the story.
func (w *World) SleepUntil(limit time.Duration, what string, so func() bool) {
	w.t.Helper()
	synctest.Wait()
	for end := time.Now().Add(limit); !so(); {
		if !time.Now().Before(end) {
			w.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(min(time.Until(end), 10*time.Millisecond))
		synctest.Wait()
	}
}

func worldConfig() *config.Config {
	c := config.Default()
	c.Node.DataDir = dataDir
	c.Node.Hostname = nodeName
	c.Node.ProviderDomains = []mail.Domain{providerDomain}
	// What a node does all the time though nobody asks it is what a simulated day
	// costs. Here it does it less often.
	c.Node.Raft.Heartbeat = 10 * time.Second
	c.Node.LowSpace.CheckEvery = 20 * time.Second
	c.Login.Files.Rescan = 10 * time.Minute
	// So small that a power failure also meets snapshots, flushes and compactions.
	c.Node.Raft.SnapshotBytes = 128 << 10
	c.Node.Store.MemtableSize = 256 << 10
	c.Node.Store.CacheSize = 1 << 20
	c.SMTPD.Listen = []string{nodeAddr.String() + ":25"}
	c.API.Address = nodeAddr.String() + ":8025"
	c.Login.Radius.Listen = nodeAddr.String() + ":1813"
	c.Login.Radius.Clients = append(c.Login.Radius.Clients, radiusClient())
	return c
}
