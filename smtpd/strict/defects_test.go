package strict

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// What go-smtp 0.25.1 does with its own reading of the wire, and what it does
// behind a Conn. Where the bare part of one of these fails, a newer version has
// mended it.
func TestDefectsOfGoSMTPDoNotReachThrough(t *testing.T) {
	begin := hello + envelope
	for _, tt := range []struct {
		name, said string
		bare       []string // replies without a Conn
		bareKept   []string
		want       []string
		kept       []string
	}{
		{"commands end in LF", strings.ReplaceAll(begin, "\r", "") + "QUIT\r\n",
			[]string{"250", "250", "250", "221"}, nil,
			[]string{"500", "500", "500", "221"}, nil},
		{"octets are lost and the message is accepted", begin + "DATA\r\nx\r\n.\ry\r\n.\r\nQUIT\r\n",
			[]string{"250", "250", "250", "354", "250", "221"}, []string{"x\r\ny\r\n"},
			[]string{"250", "250", "250", "354", "550", "221"}, nil},
		{"the end of data is not found", begin + "DATA\r\nx\r\r\n.\r\nQUIT\r\n",
			[]string{"250", "250", "250", "354", "554"}, nil,
			[]string{"250", "250", "250", "354", "550", "221"}, nil},
		{"bare LFs are passed on", begin + "DATA\r\nx\n.\ny\r\n.\r\nQUIT\r\n",
			[]string{"250", "250", "250", "354", "250", "221"}, []string{"x\n.\ny\r\n"},
			[]string{"250", "250", "250", "354", "550", "221"}, nil},
		{"NUL is passed on", begin + "BDAT 3 LAST\r\na\x00bQUIT\r\n",
			[]string{"250", "250", "250", "250", "221"}, []string{"a\x00b"},
			[]string{"250", "250", "250", "550", "221"}, nil},
		{"no postmaster", begin + "RCPT TO:<PostMaster>\r\nQUIT\r\n",
			[]string{"250", "250", "250", "501", "221"}, nil,
			[]string{"250", "250", "250", "250", "221"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, bare := range []bool{true, false} {
				w := newWorld(t)
				w.bare = bare
				want, kept := tt.want, tt.kept
				if bare {
					want, kept = tt.bare, tt.bareKept
				}
				if got := codes(w.play(tt.said)); !slices.Equal(got, want) {
					t.Errorf("bare %v: heard %v, want %v", bare, got, want)
				}
				if got := w.bodies(); !slices.Equal(got, kept) {
					t.Errorf("bare %v: kept %q, want %q", bare, got, kept)
				}
			}
		})
	}
}

// go-smtp passes a local part on without its quotes, after which two addresses
// of different domains look the same. The backend can see the path itself.
func TestQuotedLocalPartsCanBeToldApart(t *testing.T) {
	seen := map[string][]string{}
	for _, path := range []string{`<"a@b.example"@c.example>`, `<a@b.example@c.example>`} {
		w := newWorld(t)
		w.play(hello + "MAIL FROM:<>\r\nRCPT TO:" + path + "\r\nDATA\r\n.\r\nQUIT\r\n")
		w.mu.Lock()
		to, arg := w.mails[0].to, w.mails[0].arg
		w.mu.Unlock()
		if arg != "TO:"+path {
			t.Errorf("%s: Command gives %q", path, arg)
		}
		seen[to] = append(seen[to], path)
	}
	for to, paths := range seen {
		if len(paths) != 2 {
			t.Errorf("go-smtp has changed: %q only stands for %v", to, paths)
		}
	}
}

// slow is a backend with three messages: the first is given up, the second is
// stored slowly, the third is refused. Each result is there when the next message
// has begun, or after a while.
type slow struct {
	session
	began [4]chan struct{}
}

func (s *slow) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.conn, _ = c.Conn().(*Conn)
	return s, nil
}

func (s *slow) Data(r io.Reader) error {
	n := int(s.to[0] - '0')
	close(s.began[n-1])
	if s.conn != nil {
		r = s.conn.Body()
	}
	_, err := io.Copy(io.Discard, r)
	select {
	case <-s.began[n]:
	case <-time.After(50 * time.Millisecond):
	}
	if n == 3 {
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "no room"}
	}
	return err
}

// go-smtp's RSET does not wait for the goroutine that takes a message by BDAT.
// So the first message's failure answers the second message, and the second's
// 250 answers the third, which was not stored: it is lost.
func TestResultsOfOneMessageAnswerForNoOther(t *testing.T) {
	const one = "MAIL FROM:<a@b.example>\r\nRCPT TO:<%d@e.example>\r\nBDAT 3%s\r\n%d\r\n"
	said := hello + fmt.Sprintf(one, 1, "", 1) + "RSET\r\n" + fmt.Sprintf(one, 2, " LAST", 2) + fmt.Sprintf(one, 3, " LAST", 3) + "QUIT\r\n"
	for _, bare := range []bool{true, false} {
		if bare && raceDetector {
			continue // it finds go-smtp's race, and rightly so
		}
		w := newWorld(t)
		w.bare = bare
		b := &slow{}
		for i := range b.began {
			b.began[i] = make(chan struct{})
		}
		w.srv.Backend = b
		want := []string{"250", "250", "250", "250", "250", "250", "250", "250", "250", "250", "452", "221"}
		if bare {
			want[7], want[10] = "554", "250"
		}
		if got := codes(w.play(said)); !slices.Equal(got, want) {
			t.Errorf("bare %v: heard %v, want %v", bare, got, want)
		}
	}
}

func TestMessagesCanBeGivenUpAmidTheirChunks(t *testing.T) {
	for _, verb := range []string{"RSET", "EHLO again.example", "HELO again.example"} {
		w := newWorld(t)
		const rounds = 300
		var said strings.Builder
		said.WriteString(hello)
		var want []string
		var kept []string
		want = append(want, "250")
		for i := range rounds {
			fmt.Fprintf(&said, "%sBDAT 5\r\nold\r\n%s\r\n%sBDAT 6 LAST\r\nnew%d\r\n", envelope, verb, envelope, i%10)
			want = append(want, "250", "250", "250", "250", "250", "250", "250")
			kept = append(kept, fmt.Sprintf("new%d\r\n", i%10))
		}
		said.WriteString("QUIT\r\n")
		want = append(want, "221")
		if got := codes(w.play(said.String())); !slices.Equal(got, want) {
			t.Errorf("%s: heard %v", verb, got)
		}
		if got := w.bodies(); !slices.Equal(got, kept) {
			t.Errorf("%s: kept %q", verb, got)
		}
	}
}
