package ordeal

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bsmtpd/mail"
)

// customer is a customer with a server that goes on and off.
type customer struct {
	login      mail.Login
	addr       string
	extensions []string
	ledger     *ledger

	mu     sync.Mutex // guards all below
	l      net.Listener
	visits map[*visit]bool
	wg     sync.WaitGroup
	polite atomic.Bool // says 421 at the next MAIL
}

// visit is one connection to a customer's server.
type visit struct {
	net.Conn
	began time.Time

	mu  sync.Mutex // guards cut
	cut time.Time  // when the customer hung up without a word
}

func (v *visit) cutAt() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cut
}

// newCustomers makes n customers, all off, and their accounts.
func newCustomers(t testing.TB, s *server, l *ledger, n int) []*customer {
	t.Helper()
	var out []*customer
	for i := range n {
		c := &customer{login: mail.Login(fmt.Sprintf("c%d", i)), addr: "127.0.0.1:" + freePort(t), ledger: l, visits: map[*visit]bool{},
			extensions: [][]string{{"PIPELINING", "CHUNKING"}, {"PIPELINING"}, {"8BITMIME"}}[i%3]}
		s.customer(c.login, c.addr)
		t.Cleanup(func() { c.off(true); c.wg.Wait() })
		out = append(out, c)
	}
	return out
}

func (c *customer) on(t testing.TB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.l != nil {
		return
	}
	c.polite.Store(false)
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		t.Errorf("a customer's server cannot start: %v", err)
		return
	}
	c.l = l
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			v := &visit{Conn: conn, began: time.Now()}
			c.mu.Lock()
			c.visits[v] = true
			c.mu.Unlock()
			c.wg.Go(func() {
				c.converse(v)
				conn.Close()
				c.mu.Lock()
				delete(c.visits, v)
				c.mu.Unlock()
			})
		}
	})
}

// off takes the server away; abruptly: in the middle of what it does.
func (c *customer) off(abruptly bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.l != nil {
		c.l.Close()
		c.l = nil
	}
	if !abruptly {
		c.polite.Store(true)
		return
	}
	for v := range c.visits {
		v.mu.Lock()
		if v.cut.IsZero() {
			v.cut = time.Now()
		}
		v.mu.Unlock()
		v.Close()
	}
}

// live lets customers go on and off until stop is closed.
func live(t testing.TB, customers []*customer, r *rand.Rand, stop chan struct{}) {
	for {
		c := customers[r.IntN(len(customers))]
		if r.IntN(3) > 0 {
			c.on(t)
		} else {
			c.off(r.IntN(2) == 0)
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+r.IntN(200)) * time.Millisecond):
		}
	}
}

// converse is SMTP as far as a good client goes.
func (c *customer) converse(v *visit) {
	r, w := bufio.NewReaderSize(v, 64<<10), bufio.NewWriter(v)
	var to []string
	var body []byte
	say := func(s string) {
		w.WriteString(s + "\r\n")
		if r.Buffered() == 0 {
			w.Flush()
		}
	}
	say("220 customer.example ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-customer.example\r\n250-" + strings.Join(c.extensions, "\r\n250-") + "\r\n250 ENHANCEDSTATUSCODES")
		case "MAIL":
			if c.polite.Load() {
				say("421 4.3.2 going off")
				w.Flush()
				io.Copy(io.Discard, v) // a close now would take the reply back
				return
			}
			to, body = nil, nil
			say("250 2.1.0 ok")
		case "RCPT":
			a, _, _ := strings.Cut(strings.TrimPrefix(arg, "TO:<"), ">")
			to = append(to, a)
			say("250 2.1.5 ok")
		case "DATA":
			say("354 go ahead")
			w.Flush()
			if body, err = readData(r); err != nil {
				return
			}
			c.ledger.arrive(to, body, v)
			say("250 2.0.0 kept")
		case "BDAT":
			size, last, _ := strings.Cut(arg, " ")
			n, _ := strconv.Atoi(size)
			chunk := make([]byte, n)
			if _, err := io.ReadFull(r, chunk); err != nil {
				return
			}
			body = append(body, chunk...)
			if last != "" {
				c.ledger.arrive(to, body, v)
			}
			say("250 2.0.0 kept")
		case "QUIT":
			say("221 2.0.0 bye")
			w.Flush()
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

// readData reads until CRLF "." CRLF and takes the stuffed dots away.
func readData(r *bufio.Reader) ([]byte, error) {
	var body []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil || string(line) == ".\r\n" {
			return body, err
		}
		if line[0] == '.' {
			line = line[1:]
		}
		body = append(body, line...)
	}
}
