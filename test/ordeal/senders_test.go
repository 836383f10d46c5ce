package ordeal

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is senders at work until end is called.
type load struct {
	ledger *ledger
	addr   string
	logins int                    // of customers, c0 and on
	size   func(r *rand.Rand) int // of the next message
	pause  func(r *rand.Rand) int // milliseconds after a batch; nil: none
	most   int                    // messages on one connection; 0: no limit
	next   atomic.Int64           // message numbers
	stop   chan struct{}
	wg     sync.WaitGroup
}

// sizes are those of a customer's mail, 1 KiB to 2 MiB.
func sizes(r *rand.Rand) int {
	switch k := r.IntN(100); {
	case k < 80:
		return 1<<10 + r.IntN(19<<10)
	case k < 97:
		return 20<<10 + r.IntN(300<<10)
	default:
		return 320<<10 + r.IntN(1728<<10)
	}
}

// send begins n senders. One that loses its connection connects again and goes on
// with the next message: of the one before it does not know, as a real sender
// would not.
func (l *load) send(n int) {
	l.stop = make(chan struct{})
	for i := range n {
		r := chance(uint64(1000 + i))
		l.wg.Go(func() {
			for !l.ended() {
				l.converse(r, i%3)
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

func (l *load) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// talk is a connection to the server.
type talk struct {
	net.Conn
	r *bufio.Reader
}

// reply reads one reply and gives its last line; empty: the server hung up.
func (c *talk) reply() string {
	for {
		c.SetReadDeadline(time.Now().Add(patience))
		line, err := c.r.ReadString('\n')
		if err != nil {
			return ""
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(line)
		}
	}
}

func (c *talk) say(text string) {
	c.SetWriteDeadline(time.Now().Add(patience))
	c.Write([]byte(text)) // an error is met at the next reply
}

// enter connects and says EHLO; nil: it was not possible, and reply says why.
func enter(addr string) (c *talk, reply string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, ""
	}
	c = &talk{conn, bufio.NewReader(conn)}
	if reply = c.reply(); strings.HasPrefix(reply, "220") {
		c.say("EHLO sender.pietersen.example\r\n")
		if reply = c.reply(); strings.HasPrefix(reply, "250") {
			return c, reply
		}
	}
	conn.Close()
	return nil, reply
}

// converse sends messages over one connection until it breaks or the load ends:
// kind 0 waits for each reply, 1 sends envelopes in one piece, 2 sends up to three
// whole messages in chunks before it reads the first reply.
func (l *load) converse(r *rand.Rand, kind int) {
	c, reply := enter(l.addr)
	if c == nil {
		if reply != "" {
			l.ledger.greeted(reply)
		}
		return
	}
	defer c.Close()
	for n := 0; !l.ended() && (l.most == 0 || n < l.most); n++ {
		batch := 1
		if kind == 2 {
			batch += r.IntN(3)
		}
		var letters []*letter
		for range batch {
			letters = append(letters, l.letter(r))
		}
		good := true
		switch kind {
		case 0:
			good = l.slow(c, letters[0])
		case 1:
			good = l.data(c, letters[0])
		default:
			good = l.chunks(c, r, letters)
		}
		if !good {
			return
		}
		if l.pause != nil {
			time.Sleep(time.Duration(l.pause(r)) * time.Millisecond)
		}
	}
	c.say("QUIT\r\n")
	c.reply()
}

// letter is one message on its way in.
type letter struct {
	n    int
	to   []string
	body []byte
}

func (l *load) letter(r *rand.Rand) *letter {
	m := &letter{n: int(l.next.Add(1))}
	rcpts := 1
	if r.IntN(5) == 0 {
		rcpts = 2 + r.IntN(3)
	}
	for _, i := range r.Perm(2 * l.logins)[:rcpts] {
		m.to = append(m.to, fmt.Sprintf("%s@c%d.example", []string{"info", "sales"}[i%2], i/2))
	}
	m.body = l.ledger.compose(r, m.n, l.size(r), m.to)
	return m
}

// greeted enters what was said instead of a greeting.
func (l *ledger) greeted(reply string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	words := strings.SplitN(reply, " ", 3)
	l.replies["greeting "+strings.Join(words[:min(2, len(words))], " ")]++
}

// slow says one command at a time. A sender that is refused waits a little. It
// reports whether the connection can go on.
func (l *load) slow(c *talk, m *letter) bool {
	commands := []string{"MAIL FROM:<anna@pietersen.example>\r\n"}
	for _, to := range m.to {
		commands = append(commands, "RCPT TO:<"+to+">\r\n")
	}
	for _, line := range append(commands, "DATA\r\n") {
		c.say(line)
		if got := c.reply(); !strings.HasPrefix(got, "2") && !strings.HasPrefix(got, "354") {
			return l.refused(c, m, got)
		}
	}
	c.say(string(stuffed(m.body)) + ".\r\n")
	got := c.reply()
	l.ledger.answer(m.n, got)
	return got != "" && !strings.HasPrefix(got, "421")
}

// refused enters a refusal before the message was sent.
func (l *load) refused(c *talk, m *letter, got string) bool {
	l.ledger.answer(m.n, got)
	if got == "" || strings.HasPrefix(got, "421") {
		return false
	}
	time.Sleep(50 * time.Millisecond)
	c.say("RSET\r\n")
	return c.reply() != ""
}

// data sends the envelope and DATA in one piece.
func (l *load) data(c *talk, m *letter) bool {
	var b strings.Builder
	b.WriteString("MAIL FROM:<anna@pietersen.example>\r\n")
	for _, to := range m.to {
		b.WriteString("RCPT TO:<" + to + ">\r\n")
	}
	c.say(b.String() + "DATA\r\n")
	got := l.envelope(c, m)
	last := c.reply()
	if !strings.HasPrefix(last, "354") {
		if got == "" || last == "" {
			got = last
		}
		return l.refused(c, m, got)
	}
	if got != "" { // a 354 all the same: RFC 2920 section 3.1 wants an empty message
		c.say(".\r\n")
		c.reply()
		return l.refused(c, m, got)
	}
	c.say(string(stuffed(m.body)) + ".\r\n")
	last = c.reply()
	l.ledger.answer(m.n, last)
	return last != "" && !strings.HasPrefix(last, "421")
}

// envelope reads the replies to MAIL and RCPT and gives the first refusal.
func (l *load) envelope(c *talk, m *letter) (refusal string) {
	for range 1 + len(m.to) {
		if got := c.reply(); !strings.HasPrefix(got, "250") && refusal == "" {
			refusal = got
		}
	}
	return refusal
}

// chunks sends whole messages with BDAT, all before the first reply.
func (l *load) chunks(c *talk, r *rand.Rand, letters []*letter) bool {
	var b bytes.Buffer
	cuts := make([]int, len(letters))
	for i, m := range letters {
		b.WriteString("MAIL FROM:<anna@pietersen.example> BODY=8BITMIME\r\n")
		for _, to := range m.to {
			b.WriteString("RCPT TO:<" + to + ">\r\n")
		}
		for rest := m.body; len(rest) > 0; cuts[i]++ {
			n := min(len(rest), 1+r.IntN(400<<10))
			last := ""
			if n == len(rest) {
				last = " LAST"
			}
			fmt.Fprintf(&b, "BDAT %d%s\r\n%s", n, last, rest[:n])
			rest = rest[n:]
		}
		if i < len(letters)-1 {
			b.WriteString("RSET\r\n") // ends what was refused
		}
	}
	sent := make(chan struct{})
	go func() { c.say(b.String()); close(sent) }() // the replies may fill the line meanwhile
	good := true
	for i, m := range letters {
		got := l.envelope(c, m)
		last := ""
		for range cuts[i] {
			last = c.reply()
			if got == "" && last != "" && !strings.HasPrefix(last, "250") {
				got = last
			}
		}
		if got == "" {
			got = last
		}
		l.ledger.answer(m.n, got)
		if i < len(letters)-1 {
			c.reply()
		}
		good = good && last != "" && !strings.HasPrefix(got, "421")
	}
	if !good {
		c.Close()
	}
	<-sent
	return good
}

// stuffed doubles the dots at the starts of lines.
func stuffed(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(b, []byte(".")) {
		b = append([]byte("."), b...)
	}
	return b
}
