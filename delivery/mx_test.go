package delivery

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mx is a customer's mail server that can be told to misbehave.
type mx struct {
	t      *testing.T
	banner string   // with code; default "220 mail.jansen.example ESMTP"
	offers []string // lines of EHLO after the first; nil: EHLO is not known
	tls    *tls.Config
	strict bool // a second MAIL gets 503 (otherwise it just begins anew)
	delay  time.Duration

	// script may answer a command itself: an empty answer means no answer at all,
	// ok false that the command goes its usual way.
	script func(c *mxConn, line string) (answer string, ok bool)
	// final answers the end of a message; nil: 250.
	final func(c *mxConn, m *arrived) string

	mu    sync.Mutex // guards what follows
	mail  []arrived
	lines []string // every command line
	conns int
	l     net.Listener
	wg    sync.WaitGroup
	open  map[net.Conn]bool
}

type arrived struct {
	from   string   // MAIL's arguments
	to     []string // RCPT's arguments
	body   string
	secure bool
}

var allOffers = []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES"}

func without(word string) []string {
	var out []string
	for _, o := range allOffers {
		if !strings.HasPrefix(o, word) {
			out = append(out, o)
		}
	}
	return out
}

func (m *mx) serve(l net.Listener) {
	m.l, m.open = l, map[net.Conn]bool{}
	m.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns++
			number := m.conns
			m.open[nc] = true
			m.mu.Unlock()
			m.wg.Go(func() {
				c := &mxConn{mx: m, nc: nc, r: bufio.NewReader(nc), n: number}
				c.run()
				nc.Close()
				m.mu.Lock()
				delete(m.open, nc)
				m.mu.Unlock()
			})
		}
	})
}

func (m *mx) close() {
	m.l.Close()
	m.mu.Lock()
	for c := range m.open {
		c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *mx) got() []arrived {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]arrived(nil), m.mail...)
}

func (m *mx) connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns
}

func (m *mx) setFinal(f func(*mxConn, *arrived) string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.final = f
}

func (m *mx) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n")
}

// bodies are the arrived bodies, joined by a space.
func (m *mx) bodies() string {
	var out []string
	for _, a := range m.got() {
		out = append(out, strings.TrimSpace(a.body))
	}
	return strings.Join(out, " ")
}

type mxConn struct {
	mx     *mx
	nc     net.Conn
	r      *bufio.Reader
	n      int // its number
	from   string
	open   bool
	to     []string
	secure bool
	count  int // messages
}

func (c *mxConn) say(s string) {
	time.Sleep(c.mx.delay)
	if s != "" {
		io.WriteString(c.nc, s+"\r\n")
	}
}

func (c *mxConn) run() {
	banner := c.mx.banner
	if banner == "" {
		banner = "220 mail.jansen.example ESMTP"
	}
	c.say(banner)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		c.mx.mu.Lock()
		c.mx.lines = append(c.mx.lines, line)
		c.mx.mu.Unlock()
		if c.mx.script != nil {
			if answer, ok := c.mx.script(c, line); ok {
				if answer == "drop" {
					return
				}
				c.say(answer)
				continue
			}
		}
		if !c.command(line) {
			return
		}
	}
}

func (c *mxConn) command(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		if c.mx.offers == nil {
			c.say("502 5.5.1 what?")
			return true
		}
		lines := append([]string{"mail.jansen.example hello"}, c.mx.offers...)
		if c.mx.tls != nil && !c.secure {
			lines = append(lines, "STARTTLS")
		}
		for i, l := range lines {
			lines[i] = "250-" + l
		}
		lines[len(lines)-1] = "250 " + lines[len(lines)-1][4:]
		c.say(strings.Join(lines, "\r\n"))
	case "HELO":
		c.say("250 mail.jansen.example")
	case "STARTTLS":
		c.say("220 go on")
		tc := tls.Server(c.nc, c.mx.tls)
		if tc.Handshake() != nil {
			return false
		}
		c.nc, c.r, c.secure = tc, bufio.NewReader(tc), true
	case "MAIL":
		if c.open && c.mx.strict {
			c.say("503 5.5.1 nested MAIL")
			return true
		}
		c.open, c.from, c.to = true, strings.TrimPrefix(arg, "FROM:"), nil
		c.say("250 2.1.0 sender ok")
	case "RCPT":
		if !c.open {
			c.say("503 5.5.1 MAIL first")
			return true
		}
		c.to = append(c.to, strings.TrimPrefix(arg, "TO:"))
		c.say("250 2.1.5 recipient ok")
	case "RSET":
		c.open, c.to = false, nil
		c.say("250 2.0.0 reset")
	case "QUIT":
		c.say("221 2.0.0 bye")
		return false
	case "DATA":
		return c.data()
	case "BDAT":
		return c.bdat(arg)
	default:
		c.say("500 5.5.2 unknown: " + strconv.Quote(line))
	}
	return true
}

func (c *mxConn) data() bool {
	if len(c.to) == 0 {
		c.say("554 5.5.1 no valid recipients")
		return true
	}
	c.say("354 go")
	var body bytes.Buffer
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(strings.TrimPrefix(line, "."))
	}
	return c.end(body.String())
}

func (c *mxConn) bdat(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil || last != "LAST" {
		c.say("501 5.5.4 BDAT what?")
		return true
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return false
	}
	if len(c.to) == 0 {
		c.say("503 5.5.1 no valid recipients") // and the transaction stays open
		return true
	}
	return c.end(string(body))
}

func (c *mxConn) end(body string) bool {
	a := arrived{from: c.from, to: c.to, body: body, secure: c.secure}
	c.open, c.to = false, nil
	c.count++
	reply := fmt.Sprintf("250 2.0.0 ok %d", c.count)
	c.mx.mu.Lock()
	final := c.mx.final
	c.mx.mu.Unlock()
	if final != nil {
		reply = final(c, &a)
	}
	if strings.HasPrefix(reply, "250") || reply == "keep and drop" {
		c.mx.mu.Lock()
		c.mx.mail = append(c.mx.mail, a)
		c.mx.mu.Unlock()
	}
	if strings.HasSuffix(reply, "drop") {
		return false
	}
	c.say(reply)
	return !strings.HasPrefix(reply, "421")
}
