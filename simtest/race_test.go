//go:build race

package simtest

import "time"

// The race detector makes a simulated day ten times as dear, so there is less of
// everything.
const (
	lifeOfAWorld  = 3 * time.Hour // how long a world has faults, on average
	worldsInATest = 12
	daysOffline   = 1 // how long a customer's mail is kept
	lifeInDays    = 1 // of mail to the world
	powerSeeds    = 6
	underRace     = true
)
