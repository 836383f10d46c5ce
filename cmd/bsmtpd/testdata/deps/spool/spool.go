package spool

import (
	"context" // named below
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"bsmtpd/cluster" // want spool may not import cluster
	"bsmtpd/mail"
)

func Now() mail.Time {
	return mail.Time(time.Now().UnixMicro()) // want may not use time.Now
}

var clock = time.Since // want may not use time.Since

func Draw(r *rand.Rand) int {
	return r.IntN(6) + rand.IntN(6) // want only host may use math/rand/v2.IntN
}

func Order(m map[string]int) (out []string) {
	for k := range m { // want the order of a map
		out = append(out, k)
	}
	type named map[string]int
	for k := range named(m) { // want the order of a map
		out = append(out, k)
	}
	for k := range maps.Keys(m) { // want the order of a map
		out = append(out, k)
	}
	return append(out, slices.Collect(maps.Values(map[int]string{}))...) // want the order of a map
}

func Ordered(m map[string]int) (sum int) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		sum += len(k)
	}
	for _, v := range m { //deterministic: a sum has no order
		sum += v
	}
	//deterministic: a sum has no order
	for _, v := range m {
		sum += v
	}
	//deterministic:
	for _, v := range m { // want the order of a map
		sum += v
	}
	return sum
}

func Wait(ctx context.Context, c chan int) { // want may not use context.Context
	go func() { c <- len(cluster.Name) }() // want may not start goroutines
	select {                               // want may not wait
	case <-c:
	default:
	}
}

func Twenty() time.Duration { return 20 * time.Minute }
