package simtest

import "flag"

// worlds is how many random worlds live.
var worlds = flag.Uint64("worlds", 20, "how many worlds TestWorld lets live, with the seeds 1 and up")

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
