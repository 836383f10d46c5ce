package main

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestALineKeepsItsRateAndItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := line{rate: 125_000, delay: 100 * time.Millisecond}
		var d direction
		began := time.Now()
		if got := d.send(1250, l).Sub(began); got != 110*time.Millisecond {
			t.Errorf("10 ms of the line arrive after %s", got)
		}
		var last time.Time
		for range 99 {
			d.wait()
			last = d.send(1250, l)
			if ahead := time.Until(d.free); ahead > lineQueue+10*time.Millisecond {
				t.Fatalf("%s wait at the beginning of the line", ahead)
			}
		}
		if got := last.Sub(began); got != 1100*time.Millisecond {
			t.Errorf("a second of the line arrives after %s", got)
		}
		time.Sleep(10 * time.Second)
		if got := time.Until(d.send(1250, l)); got != 110*time.Millisecond {
			t.Errorf("an idle line saves up: %s", got)
		}
	})
}
