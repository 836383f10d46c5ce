package main

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestAMessageHasItsLengthAndGoodLines(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for length := 1000; length < 1300; length++ {
		m := message(chance, length)
		if len(m) != length {
			t.Fatalf("%d bytes, want %d", len(m), length)
		}
		lines := strings.Split(m, "\r\n")
		if lines[len(lines)-1] != "" {
			t.Fatal("the last line has no end")
		}
		for _, l := range lines {
			if strings.ContainsAny(l, "\r\n") || len(l) > 120 || l == "." {
				t.Fatalf("line %q in a message of %d bytes", l, length)
			}
		}
	}
}
