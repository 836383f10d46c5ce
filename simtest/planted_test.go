package simtest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/quota"
)

// Bugs are planted at seams that a world has anyway, so no production code knows of
// them: a disk that says that it has synced, a server that is believed to have what
// it never got, and a hand in the node's rows. The machine level plants the same
// bugs in the machine's own transactions.
var plantedBugs = []struct {
	name    string
	promise int
	plant   func(c *town)
}{
	{"acknowledge before commit", 1, func(c *town) { c.w.disk.log.lie() }},
	{"settle a message never sent", 1, func(c *town) {
		for _, s := range c.w.servers {
			s.Behave(Manner{Forge: true, Chance: 0.1})
		}
	}},
	{"forget the schedule row", 6, func(c *town) {
		c.sabotage(func(tx *kv.Batch, name string) {
			if q := c.w.Queue(name); q.Next != 0 {
				key := append([]byte("s/"), be64(uint64(q.Next))...)
				tx.Delete(append(key, q.Name...))
			}
		})
	}},
	{"refund quota twice", 3, func(c *town) {
		c.sabotage(func(tx *kv.Batch, name string) {
			u, err := c.w.Node().Cluster().Quota().Of(mail.Login(name))
			c.w.ok("read the usage", err)
			if u.Messages > 1 {
				tx.Set([]byte("u/"+name), kv.Encode(quota.Usage{Bytes: u.Bytes - 1, Messages: u.Messages - 1}))
			}
		})
	}},
}

func be64(n uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return b
}

// sabotage changes the rows of some account every few minutes, when all is at rest.
func (c *town) sabotage(change func(tx *kv.Batch, name string)) {
	var again func()
	again = func() {
		synctest.Wait()
		if !c.w.down() {
			tx := c.w.Node().Cluster().Rows().Begin()
			change(tx, c.someone())
			c.w.ok("sabotage", tx.Commit())
		}
		c.until(c.between(time.Minute, 10*time.Minute), again)
	}
	c.until(c.between(time.Minute, 10*time.Minute), again)
}

// plantedSeeds is within how many worlds a planted bug must be found.
const plantedSeeds = 200

// The promises' checks bite: each bug is found, by the promise that it breaks.
func TestPlantedBugsAreFound(t *testing.T) {
	if underRace {
		t.Skip("a disk that lies leaves a node behind that races with the next; scripts/test.sh runs this without the race detector")
	}
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			for s := uint64(1); s <= plantedSeeds; s++ {
				found := &finder{TB: t}
				synctest.Test(t, func(*testing.T) {
					w := newWorld(found, s)
					defer func() {
						if r := recover(); r != nil && r != any(found) {
							panic(r)
						}
						w.end()
					}()
					w.Start()
					town := newTown(w)
					bug.plant(town)
					town.live(2 * time.Hour)
					w.Check()
				})
				for _, what := range found.said {
					if strings.Contains(what, fmt.Sprintf("promise %d:", bug.promise)) {
						t.Logf("found in world %d: %.200s", s, what)
						return
					}
				}
			}
			t.Fatalf("not found in %d worlds", plantedSeeds)
		})
	}
}

// finder is a test that notes its failures, so that they can be expected.
type finder struct {
	testing.TB
	said []string
}

// Errorf implements testing.TB.
func (f *finder) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

// Fatalf implements testing.TB. The story goes on as far as it can.
func (f *finder) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

// Failed implements testing.TB: nothing is to be told.
func (f *finder) Failed() bool { return false }
