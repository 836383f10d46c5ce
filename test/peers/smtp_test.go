package peers

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// caller is a client that says SMTP word by word, rightly or wrongly.
type caller struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// call connects and reads the greeting.
func call(t testing.TB, addr string) *caller {
	t.Helper()
	c := dial(t, addr)
	if got := c.reply(); !strings.HasPrefix(got, "220 ") {
		t.Fatalf("greeting %q", got)
	}
	return c
}

// dial only connects.
func dial(t testing.TB, addr string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &caller{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// send puts octets on the wire. A server that does not take them any more is met
// at the next reply.
func (c *caller) send(s string) { c.write([]byte(s)) }

func (c *caller) write(b []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(b)
	return err
}

// reply reads one reply, its lines separated by "\n". Empty: the server has hung
// up.
func (c *caller) reply() string {
	c.t.Helper()
	var lines []string
	for {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		line, err := c.r.ReadString('\n')
		if e, ok := err.(net.Error); ok && e.Timeout() {
			c.t.Fatalf("no reply within %s", patience)
		}
		if err != nil {
			return strings.Join(lines, "\n")
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// say sends a line and gives the reply.
func (c *caller) say(line string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.reply()
}

// expect says a line whose reply must begin with want.
func (c *caller) expect(want, line string) {
	c.t.Helper()
	if got := c.say(line); !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.80q was answered %q, want %s", line, got, want)
	}
}

func (c *caller) hello() *caller {
	c.t.Helper()
	c.expect("250-", "EHLO sender.pietersen.example")
	return c
}

// letter is a message and its envelope.
type letter struct {
	from   string
	to     []string
	params string // of MAIL, with a blank in front
	body   []byte // lines end in CRLF
}

// text is a letter of a few lines. The subject says which it is.
func text(subject string, to ...string) letter {
	return letter{from: "anna@pietersen.example", to: to,
		body: fmt.Appendf(nil, "From: anna@pietersen.example\r\nTo: %s\r\nSubject: %s\r\n\r\nDear all,\r\n.\r\n..two dots\r\n", strings.Join(to, ", "), subject)}
}

// envelope says MAIL and RCPT; the first refusal is the result.
func (c *caller) envelope(l *letter) string {
	c.t.Helper()
	if got := c.say("MAIL FROM:<" + l.from + ">" + l.params); !strings.HasPrefix(got, "250 ") {
		return got
	}
	for _, to := range l.to {
		if got := c.say("RCPT TO:<" + to + ">"); !strings.HasPrefix(got, "250 ") {
			return got
		}
	}
	return ""
}

// data hands a letter over with DATA and gives the last reply.
func (c *caller) data(l letter) string {
	c.t.Helper()
	if got := c.envelope(&l); got != "" {
		return got
	}
	if got := c.say("DATA"); !strings.HasPrefix(got, "354 ") {
		return got
	}
	c.write(stuffed(l.body))
	c.send(".\r\n")
	return c.reply()
}

// stuffed doubles the dots at the starts of lines.
func stuffed(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(b, []byte(".")) {
		b = append([]byte("."), b...)
	}
	return b
}

// bdat hands a letter over in chunks that are cut without regard to its lines,
// all on the way before the first is answered.
func (c *caller) bdat(l letter) string {
	c.t.Helper()
	if got := c.envelope(&l); got != "" {
		return got
	}
	chunks := 0
	var wire bytes.Buffer
	for b, size := l.body, 1; len(b) > 0; size = size*7 + 3 {
		n := min(size, len(b))
		fmt.Fprintf(&wire, "BDAT %d\r\n%s", n, b[:n])
		b = b[n:]
		chunks++
	}
	wire.WriteString("BDAT 0 LAST\r\n")
	c.write(wire.Bytes())
	for range chunks {
		if got := c.reply(); !strings.HasPrefix(got, "250 ") {
			return got
		}
	}
	return c.reply()
}

// taken checks that a message was queued, and gives its ID.
func taken(t testing.TB, reply string) string {
	t.Helper()
	_, id, ok := strings.Cut(reply, " queued as ")
	if !ok || !strings.HasPrefix(reply, "250 2.0.0 ") {
		t.Fatalf("the message was not taken: %q", reply)
	}
	return id
}
