package smtpd

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// collect is a sink that keeps everything.
type collect struct{ bytes.Buffer }

func (c *collect) add(p []byte) *refusal {
	c.Write(p)
	return nil
}

func newChecker(dots bool) checker {
	return checker{dots: dots, maxLine: 100, maxHeader: 1000, maxHops: 3}
}

// feed gives input to a checker in pieces that end at the cuts.
func feed(c *checker, input []byte, cuts []int) (text string, used int, end bool) {
	var out collect
	var held []byte
	at := 0
	for _, cut := range append(cuts, len(input)) {
		if cut < at || cut > len(input) {
			continue
		}
		held = append(held, input[at:cut]...)
		at = cut
		n, done := c.take(held, &out)
		used += n
		held = held[n:]
		if done {
			return out.String(), used, true
		}
	}
	return out.String(), used, false
}

// plainData is the end of data and the dots of RFC 5321 section 4.5.2 in their
// simplest form: split at CRLF.
func plainData(input string) (text string, used int, end bool) {
	for {
		line, rest, whole := strings.Cut(input[used:], "\r\n")
		switch {
		case whole && line == ".":
			return text, used + 3, true
		case !whole:
			return text, used, false
		}
		text += strings.TrimPrefix(line, ".") + "\r\n"
		used = len(input) - len(rest)
	}
}

// faulty is what a message may not have.
func faulty(text string, maxLine int) bool {
	clean := strings.ReplaceAll(text, "\r\n", "")
	if strings.ContainsAny(clean, "\r\n\x00") {
		return true
	}
	for _, line := range strings.Split(text, "\r\n") {
		if len(line) > maxLine {
			return true
		}
	}
	return false
}

func mostlyMail() *rapid.Generator[string] {
	piece := rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", ".", "\r", "\n", "\x00", "a", "Subject: x", "Received: y\r\n", " ", ":",
		"\r\n.\r\n", strings.Repeat("z", 60)})
	return rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 0, 40).Draw(t, "pieces"), "") })
}

func TestCheckerAgreesWithThePlainReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := mostlyMail().Draw(t, "input") + "\r\n.\r\n"
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 10).Draw(t, "cuts")
		compareData(t, input, cuts)
	})
}

type fataler interface{ Fatalf(string, ...any) }

func compareData(t fataler, input string, cuts []int) {
	c := newChecker(true)
	c.maxHops, c.maxHeader = 1000, 1<<20
	text, used, end := feed(&c, []byte(input), cuts)
	wantText, wantUsed, wantEnd := plainData(input)
	if end != wantEnd || end && used != wantUsed {
		t.Fatalf("%q: end %v after %d octets, want %v after %d", input, end, used, wantEnd, wantUsed)
	}
	if !end {
		return
	}
	bad := c.finish() != nil
	if bad != faulty(wantText, c.maxLine) {
		t.Fatalf("%q: refused %v: %v", input, bad, c.bad)
	}
	if !bad && text != wantText {
		t.Fatalf("%q: text %q, want %q", input, text, wantText)
	}
}

func TestChunksPassUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := mostlyMail().Draw(t, "input")
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 10).Draw(t, "cuts")
		c := newChecker(false)
		c.maxHops, c.maxHeader = 1000, 1<<20
		text, used, end := feed(&c, []byte(input), cuts)
		bad := c.finish() != nil
		switch {
		case end || used != len(input):
			t.Fatalf("ended at %d of %d", used, len(input))
		case bad != faulty(input, c.maxLine):
			t.Fatalf("refused %v: %v", bad, c.bad)
		case !bad && text != input:
			t.Fatalf("text %q", text)
		}
	})
}

// The verdict may not depend on how TCP cut the octets.
func TestCutsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := mostlyMail().Draw(t, "input")
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 10).Draw(t, "cuts")
		whole, pieces := newChecker(false), newChecker(false)
		feed(&whole, []byte(input), nil)
		feed(&pieces, []byte(input), cuts)
		a, b := whole.finish(), pieces.finish()
		if (a == nil) != (b == nil) || a == nil && (whole.hops != pieces.hops || whole.past != pieces.past) {
			t.Fatalf("whole: %v, %d hops, past %v; in pieces: %v, %d hops, past %v", a, whole.hops, whole.past, b, pieces.hops, pieces.past)
		}
	})
}

func TestFirstOffendingLineIsNamed(t *testing.T) {
	for _, tt := range []struct{ input, want string }{
		{"a: b\r\n\r\nx\r\ny\nz\r\n\x00\r\n", "line 4 of the message has a bare LF"},
		{"a: b\r\n\r\nx\ry\r\n\n", "line 3 of the message has a bare CR"},
		{"a\x00\r\n", "line 1 of the message has a NUL"},
		{"a: b\r\n" + strings.Repeat("x", 101) + "\r\n", "line 2 of the message has more than 100 octets"},
		{"a: b\r\n\r\nx\r", "line 3 of the message has a bare CR"},
		{strings.Repeat("a: b\r\n", 400), "the header is larger than 1000 octets"},
		{"Received: a\r\nRECEIVED: b\r\nx: y\r\n Received: no\r\nreceived: c\r\nReceived: d\r\n", "more than 3 servers"},
	} {
		for cut := range len(tt.input) {
			c := newChecker(false)
			feed(&c, []byte(tt.input), []int{cut})
			if r := c.finish(); r == nil || !strings.Contains(r.Text, tt.want) {
				t.Errorf("%q cut at %d: got %v, want %q", tt.input, cut, r, tt.want)
			}
		}
	}
}

func TestHeaderEndsWhereItEnds(t *testing.T) {
	received := strings.Repeat("Received: x\r\n", 4)
	for _, head := range []string{"\r\n", "Subject: x\r\n\r\n", "no field\r\n", "word\r\n", ": x\r\n", "Subject: x\r\nno field: y\r\n", "From a@b Mon Jan  1 10:00:00 2024\r\n"} {
		c := newChecker(false)
		feed(&c, []byte(head+received), nil)
		if r := c.finish(); r != nil {
			t.Errorf("%q: %v", head, r)
		}
	}
	for _, head := range []string{"", "X: y\r\n", "X : y\r\n", "X: y\r\n\tfolded\r\n"} {
		c := newChecker(false)
		feed(&c, []byte(head+received), nil)
		if r := c.finish(); r == nil {
			t.Errorf("%q: a loop was not seen", head)
		}
	}
}

func FuzzChecker(f *testing.F) {
	f.Add("Subject: x\r\n\r\nbody\r\n..dot\r\n.\r\n", 5, 9)
	f.Add("a\n.\r\nb\r\n.\n\r\r\n.\r\n", 1, 2)
	f.Add("\r\n.\r\r\n.\r\n", 3, 4)
	f.Fuzz(func(t *testing.T, input string, a, b int) {
		if len(input) > 1<<16 {
			return
		}
		compareData(t, input, []int{a, b})
	})
}
