package simtest

import (
	"flag"
	"time"
)

// worlds is how many random worlds live.
var worlds = flag.Uint64("worlds", worldsInATest, "how many worlds TestWorld lets live")

// from is the seed of the first.
var from = flag.Uint64("from", 1, "the first seed of TestWorld; the next worlds have the seeds behind it")

// days is how long they live.
var days = flag.Float64("days", 0, "how many days a world of TestWorld has faults on average; 0: as long as is right for a test")

// seed lets one world be looked at again: go test ./simtest -run TestWorld -seed 17
var seed = flag.Uint64("seed", 0, "the seed of the only world to run, in tests that run many; 0: all")

// seeds are those from one to another, or the one of the flag.
func seeds(from, to uint64) []uint64 {
	if *seed != 0 {
		return []uint64{*seed}
	}
	var out []uint64
	for s := from; s <= to; s++ {
		out = append(out, s)
	}
	return out
}

// lifeSpan is how long a world has faults: from a third of the average to five times
// as long, few of them long.
func lifeSpan(seed uint64) time.Duration {
	average := lifeOfAWorld
	if *days > 0 {
		average = time.Duration(*days * float64(24*time.Hour))
	}
	rng := chance(seed).stream("life")
	return min(average/3+time.Duration(rng.ExpFloat64()*float64(average)*2/3), 5*average)
}
