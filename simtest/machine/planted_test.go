package machine

import (
	"errors"
	"testing"
)

// plantedSeeds is within how many runs a planted bug must be found.
const plantedSeeds = 200

// The checks bite: each bug that is planted is found, and by the promise that it
// breaks.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range []struct {
		name    string
		promise int
		planted planted
	}{
		{"acknowledge before commit", 1, planted{ackEarly: true}},
		{"forget the schedule row", 6, planted{forgetDue: true}},
		{"refund quota twice", 3, planted{refundTwice: true}},
		{"do not refund quota", 3, planted{keepCharge: true}},
		{"settle a message never sent", 1, planted{settleUnsent: true}},
		{"apply an entry twice", 7, planted{applyTwice: true}},
	} {
		t.Run(bug.name, func(t *testing.T) {
			for s := uint64(1); s <= plantedSeeds; s++ {
				_, err := live(s, stepsOfALife, &bug.planted)
				var b broken
				if !errors.As(err, &b) {
					continue
				}
				t.Logf("found in run %d: %v", s, err)
				if b.promise == bug.promise {
					return
				}
			}
			t.Fatalf("not found in %d runs", plantedSeeds)
		})
	}
}
