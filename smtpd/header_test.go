package smtpd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newHeader() header { return header{maxBytes: 1000, maxHops: 3} }

// feed gives a message to a header in pieces that end at the cuts.
func feed(h *header, input string, cuts ...int) *refusal {
	slices.Sort(cuts)
	at := 0
	for _, cut := range append(cuts, len(input)) {
		if r := h.scan([]byte(input[at:cut])); r != nil {
			return r
		}
		at = cut
	}
	return nil
}

// The verdict may not depend on how TCP cut the octets.
func TestCutsDoNotMatter(t *testing.T) {
	piece := rapid.SampledFrom([]string{"\r\n", "\r\n", "a", "Subject: x", "Received: y\r\n", "received", " ", "\t", ":", "\r\n ", strings.Repeat("z", 300)})
	rapid.Check(t, func(t *rapid.T) {
		input := strings.Join(rapid.SliceOfN(piece, 0, 40).Draw(t, "pieces"), "")
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 10).Draw(t, "cuts")
		whole, pieces := newHeader(), newHeader()
		a, b := feed(&whole, input), feed(&pieces, input, cuts...)
		if (a == nil) != (b == nil) || a == nil && (whole.hops != pieces.hops || whole.past != pieces.past) {
			t.Fatalf("whole: %v, %d hops, past %v; in pieces: %v, %d hops, past %v", a, whole.hops, whole.past, b, pieces.hops, pieces.past)
		}
	})
}

func TestLargeHeadersAndLoopsAreRefused(t *testing.T) {
	for _, tt := range []struct{ input, want string }{
		{strings.Repeat("a: b\r\n", 400), "the header is larger than 1000 octets"},
		{strings.Repeat("a", 1001), "the header is larger than 1000 octets"},
		{"Received: a\r\nRECEIVED: b\r\nx: y\r\n Received: no\r\nreceived: c\r\nReceived: d\r\n", "more than 3 servers"},
	} {
		for cut := range len(tt.input) {
			h := newHeader()
			if r := feed(&h, tt.input, cut); r == nil || !strings.Contains(r.Text, tt.want) {
				t.Errorf("%q cut at %d: got %v, want %q", tt.input, cut, r, tt.want)
			}
		}
	}
}

func TestHeaderEndsWhereItEnds(t *testing.T) {
	received := strings.Repeat("Received: x\r\n", 4)
	for _, head := range []string{"\r\n", "Subject: x\r\n\r\n", "no field\r\n", "word\r\n", ": x\r\n", "Subject: x\r\nno field: y\r\n", "From a@b Mon Jan  1 10:00:00 2024\r\n"} {
		h := newHeader()
		if r := feed(&h, head+received); r != nil {
			t.Errorf("%q: %v", head, r)
		}
	}
	for _, head := range []string{"", "X: y\r\n", "X : y\r\n", "X: y\r\n\tfolded\r\n"} {
		h := newHeader()
		if r := feed(&h, head+received); r == nil {
			t.Errorf("%q: a loop was not seen", head)
		}
	}
}

// A message cannot write on in the Received field that stands before it.
func TestAMessageThatBeginsWithABlankHasNoHeader(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	for _, tt := range []struct{ said, want string }{
		{" by evil.example\r\nSubject: x\r\n", "\r\n by evil.example\r\nSubject: x\r\n"},
		{"\tx", "\r\n\tx"},
		{"a: b\r\n\tc\r\n", "a: b\r\n\tc\r\n"},
		{"\r\n x\r\n", "\r\n x\r\n"},
		{"", ""},
	} {
		c.envelope(jansen)
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(tt.said), tt.said))
		c.want("250")
		all := w.stored()
		_, date, _ := strings.Cut(all[len(all)-1].Body, ";\r\n\t")
		_, got, _ := strings.Cut(date, "\r\n")
		if got != tt.want {
			t.Errorf("%q is stored as %q", tt.said, all[len(all)-1].Body)
		}
	}
}
