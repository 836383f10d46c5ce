//go:build !race

package simtest

import "time"

const (
	lifeOfAWorld  = 6 * time.Hour // how long a world has faults, on average
	worldsInATest = 20
	daysOffline   = 8 // how long a customer's mail is kept
	lifeInDays    = 5 // of mail to the world
	powerSeeds    = 16
	underRace     = false
)
