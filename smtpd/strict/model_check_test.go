package strict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type fataler interface{ Fatalf(string, ...any) }

// compare lets a client say something, cut at some places, and wants from the
// server what the model says.
func compare(t fataler, w *world, said string, cuts []int) {
	w.mu.Lock()
	w.mails = nil
	w.mu.Unlock()
	slices.Sort(cuts)
	var pieces []string
	at := 0
	for _, cut := range cuts {
		if cut > at && cut < len(said) {
			pieces = append(pieces, said[at:cut])
			at = cut
		}
	}
	pieces = append(pieces, said[at:])
	heard := codes(w.play(pieces...))
	m := model{cfg: &w.cfg, in: said}
	m.run()
	if !slices.Equal(heard, m.heard) {
		t.Fatalf("%q cut at %v:\nheard %v\nwant  %v", said, cuts, heard, m.heard)
	}
	if got := w.bodies(); !slices.Equal(got, m.kept) {
		t.Fatalf("%q cut at %v:\nkept %q\nwant %q", said, cuts, got, m.kept)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.panics) > 0 {
		t.Fatalf("%q: %v", said, w.panics)
	}
}

var octets = rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", "\r\n", ".", ".", "\r\n.\r\n", "\r", "\n", "\x00", "a", "bc", "é", "Subject: x\r\n",
	strings.Repeat("z", 60), "\r\n.", "QUIT\r\n", "RSET\r\n"})

var clean = rapid.SampledFrom([]string{"\r\n", "\r\n", ".", "..", "\r\n.", "a", "bc", "\xff", "Subject: x\r\n", strings.Repeat("z", 10), "QUIT\r\n"})

func text(from *rapid.Generator[string]) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(from, 0, 8).Draw(t, "text"), "") })
}

// chunk is a BDAT whose size is mostly right.
var chunk = rapid.Custom(func(t *rapid.T) string {
	body := text(rapid.OneOf(clean, clean, octets)).Draw(t, "chunk")
	n := len(body) + rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, -1, 3}).Draw(t, "off")
	return fmt.Sprintf("BDAT %d%s\r\n%s", max(n, 0), rapid.SampledFrom([]string{"", "", " LAST", " last"}).Draw(t, "last"), body)
})

var dialogue = rapid.Custom(func(t *rapid.T) string {
	step := rapid.OneOf(
		rapid.Just(envelope), rapid.Just(envelope), rapid.Just(hello),
		rapid.Custom(func(t *rapid.T) string {
			return envelope + "DATA\r\n" + text(rapid.OneOf(clean, clean, octets)).Draw(t, "data") + rapid.SampledFrom([]string{"\r\n.\r\n", ".\r\n", ""}).Draw(t, "end")
		}),
		chunk, chunk, chunk,
		rapid.SampledFrom([]string{"RSET\r\n", "NOOP\r\n", "DATA\r\n", "MAIL FROM:<>\r\n", "noop x\r\n", "FOO\r\n", "BDAT x\r\n", "BDAT 99999999999\r\n", "BDAT 7000000000000000000\r\n", "BDAT 18446744073709551617 LAST\r\n", "BDAT 18446744073709551617x\r\n", "re\u017fet\r\n", "BDAT +1\r\n", "BDAT 5 LAST x\r\n",
			"NOOP\n", "NO\rOP\r\n", "\r\n", "NOOP \x00\r\n", "NOOP \xff\r\n", "QUIT\r\n", "NOOP " + strings.Repeat("x", 1200) + "\r\n"}),
		octets,
	)
	return hello + strings.Join(rapid.SliceOfN(step, 0, 10).Draw(t, "steps"), "")
})

// Replies and messages are those of the model, however TCP cuts the octets.
func TestConnAgreesWithTheModel(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		said := dialogue.Draw(t, "said")
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(said)), 0, 12).Draw(t, "cuts")
		compare(t, w, said, cuts)
	})
}

// A clean message arrives as it was sent, by DATA and in chunks.
func TestCleanMessagesArriveUnchanged(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		body := text(clean).Draw(t, "body")
		var lines strings.Builder
		for line := range strings.SplitAfterSeq(body, "\r\n") {
			if strings.HasPrefix(line, ".") {
				lines.WriteByte('.')
			}
			lines.WriteString(line)
		}
		data := lines.String()
		want := body
		if !strings.HasSuffix(data, "\r\n") && data != "" {
			data, want = data+"\r\n", body+"\r\n"
		}
		var said strings.Builder
		said.WriteString(hello + envelope + "DATA\r\n" + data + ".\r\n" + envelope)
		at := 0
		for _, cut := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 6).Draw(t, "chunks") {
			end := min(at+cut, len(body))
			fmt.Fprintf(&said, "BDAT %d\r\n%s", end-at, body[at:end])
			at = end
		}
		fmt.Fprintf(&said, "BDAT %d LAST\r\n%sQUIT\r\n", len(body)-at, body[at:])
		s := said.String()
		compare(t, w, s, rapid.SliceOfN(rapid.IntRange(0, len(s)), 0, 12).Draw(t, "cuts"))
		if got := w.bodies(); !slices.Equal(got, []string{want, body}) {
			t.Fatalf("sent %q, kept %q", body, got)
		}
	})
}

// A message with one fault in it is taken by neither way.
func TestFaultyMessagesAreNeverTaken(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		before, after := text(clean).Draw(t, "before"), text(clean).Draw(t, "after")
		bad := rapid.SampledFrom([]string{"\n", "a\r", "\x00", "\r\r\n", "\n\r\n", "\n.\r\n", "\r\n.\n", "\r\n.\ra", strings.Repeat("z", 101), "\n.\n"}).Draw(t, "bad")
		body := "x" + before + bad + "x" + after + "\r\n"
		if !faulty(body, &w.cfg) || strings.Contains(body, "\r\n.\r\n") {
			t.Skip("the pieces mended each other, or end the data")
		}
		cut := rapid.IntRange(0, len(body)).Draw(t, "chunk")
		s := fmt.Sprintf("%s%sDATA\r\n%s.\r\n%sBDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n", hello, envelope, body,
			envelope, cut, body[:cut], len(body)-cut, body[cut:])
		compare(t, w, s, rapid.SliceOfN(rapid.IntRange(0, len(s)), 0, 12).Draw(t, "cuts"))
		if got := w.bodies(); len(got) > 0 {
			t.Fatalf("sent %q, kept %q", body, got)
		}
	})
}

func FuzzConn(f *testing.F) {
	f.Add(hello+envelope+"DATA\r\na\r\n..b\r\n.\r\nQUIT\r\n", 5, 40)
	f.Add(hello+envelope+"BDAT 3\r\na\r\nBDAT 4 LAST\r\n.\r\nxRSET\r\n", 50, 60)
	f.Add(hello+envelope+"BDAT 3\r\na\r\nRSET\r\n"+envelope+"DATA\r\n\r\r\n.\r\n\n.\r\n", 50, 100)
	f.Add(hello+envelope+"BDAT 100\r\n"+strings.Repeat("x", 98)+"\r\nBDAT 131000\r\n", 50, 59)
	f.Add(hello+envelope+"BDAT 7000000000000000000\r\n", 50, 59)
	f.Add(hello+envelope+"BDAT 99999999999999999999x\r\n", 50, 59)
	f.Add(hello+envelope+"r\u017fet\r\nBDAT 1 la\u017ft\r\nqu\u0131t\r\n", 50, 59)
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, said string, a, b int) {
		if len(said) > 1<<14 || !ours(said) {
			return
		}
		compare(t, w, said, []int{a, b})
	})
}

// ours reports what the model knows: it leaves out the syntax of addresses and
// parameters, which is go-smtp's.
func ours(said string) bool {
	up := strings.ToUpper(said)
	for _, word := range []string{"STARTTLS", "AUTH", "VRFY", "HELP", "EXPN", "HELO", "LHLO"} {
		if strings.Contains(up, word) {
			return false
		}
	}
	for _, word := range []string{"EHLO", "MAIL", "RCPT", "DATA"} {
		good := map[string]string{"EHLO": strings.TrimSuffix(hello, "\n"), "MAIL": "MAIL FROM:<a@b.example>\r", "RCPT": "RCPT TO:<d@e.example>\r", "DATA": "DATA\r"}[word]
		if strings.Count(up, word) != strings.Count(said, good+"\n") {
			return false
		}
	}
	return true
}
