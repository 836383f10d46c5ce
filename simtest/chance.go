package simtest

import (
	"hash/fnv"
	"math/rand/v2"
)

// chance gives every named part of the world its own stream, so that one part
// that draws more does not change what another gets.
type chance uint64

// stream is the stream of a name.
func (c chance) stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(uint64(c), h.Sum64()))
}
