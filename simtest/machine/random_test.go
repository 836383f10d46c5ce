package machine

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 0, "the seed of the only town to live; 0: many do")
	towns = flag.Uint64("towns", 200, "how many towns TestRandom lets live, with the seeds 1 and up")
)

// stepsOfALife is how much happens to a town.
const stepsOfALife = 250

func seeds(n uint64) []uint64 {
	if *seed != 0 {
		return []uint64{*seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i) + 1
	}
	return out
}

// TestRandom lets towns live with everything that can happen, by chance. One that
// finds a promise broken says its seed; -seed N gives the same run to the bit.
func TestRandom(t *testing.T) {
	began := time.Now()
	all := newStats()
	for _, s := range seeds(*towns) {
		st, err := live(s, stepsOfALife, nil)
		if err != nil {
			t.Errorf("seed %d: %v", s, err)
		}
		all.add(st)
	}
	t.Logf("%.0f runs a minute; %s", float64(len(seeds(*towns)))/time.Since(began).Minutes(), all)
	if *seed != 0 {
		return
	}
	for kind := range knownKinds(t) {
		if all.kinds[kind] == 0 {
			t.Errorf("no town has proposed a command of kind %d", kind)
		}
		if all.kinds[kind] == all.refused[kind] {
			t.Errorf("every command of kind %d was refused", kind)
		}
	}
}

// The same seed gives the same run: to the bit, but where a replica has a real
// database (newTown), which flushes when it likes.
func TestASeedIsARun(t *testing.T) {
	for s := uint64(1); s <= 8; s++ {
		a, b := newTown(s, nil), newTown(s, nil)
		for range stepsOfALife {
			a.step()
			b.step()
		}
		if len(a.log) != len(b.log) || a.node.hash() != b.node.hash() || a.clock != b.clock {
			t.Fatalf("seed %d gave two runs: %d and %d entries, rows %s and %s", s, len(a.log), len(b.log), a.node.hash(), b.node.hash())
		}
		a.close()
		b.close()
	}
}

func newStats() stats {
	return stats{kinds: map[uint64]int{}, refused: map[uint64]int{}, faults: map[string]int{}}
}

func (s *stats) add(o stats) {
	s.entries += o.entries
	for k, n := range o.kinds {
		s.kinds[k] += n
	}
	for k, n := range o.refused {
		s.refused[k] += n
	}
	for k, n := range o.faults {
		s.faults[k] += n
	}
}

// String is what was covered.
func (s stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d entries\ncommands by kind (refused):", s.entries)
	for _, k := range slices.Sorted(maps.Keys(s.kinds)) {
		fmt.Fprintf(&b, " %d: %d (%d)", k, s.kinds[k], s.refused[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.faults)) {
		fmt.Fprintf(&b, "\n%7d %s", s.faults[k], k)
	}
	return b.String()
}
