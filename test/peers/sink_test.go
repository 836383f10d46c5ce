package peers

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// delivered is a message as a customer's server got it, octet for octet.
type delivered struct {
	from string // the argument of MAIL
	to   []string
	body []byte
}

// sink is a customer's server that keeps what it gets and changes nothing.
type sink struct {
	t          *testing.T
	addr       string
	extensions []string
	got        chan delivered
}

// newSink starts a sink; without extensions it offers PIPELINING, CHUNKING,
// 8BITMIME and SMTPUTF8.
func newSink(t *testing.T, extensions ...string) *sink {
	t.Helper()
	if len(extensions) == 0 {
		extensions = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8"}
	}
	k := &sink{t: t, extensions: extensions, got: make(chan delivered, 10_000)}
	k.addr = listen(t, "127.0.0.1:0", k.converse)
	return k
}

// listen serves connections until the test ends, each by handle; it gives the
// address.
func listen(t *testing.T, addr string, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// next is the next message that comes.
func (k *sink) next() delivered {
	k.t.Helper()
	select {
	case d := <-k.got:
		return d
	case <-time.After(patience):
		k.t.Fatal("no mail came")
		return delivered{}
	}
}

// none checks that no message is there.
func (k *sink) none() {
	k.t.Helper()
	select {
	case d := <-k.got:
		k.t.Fatalf("mail came that should not: %q", d.body)
	default:
	}
}

// converse is SMTP as far as a good client goes.
func (k *sink) converse(c net.Conn) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	var d delivered
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
		line = strings.TrimSuffix(line, "\r\n")
		verb, arg, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-customer.example\r\n250-" + strings.Join(k.extensions, "\r\n250-") + "\r\n250 ENHANCEDSTATUSCODES")
		case "MAIL":
			d = delivered{from: arg}
			say("250 2.1.0 ok")
		case "RCPT":
			d.to = append(d.to, arg)
			say("250 2.1.5 ok")
		case "DATA":
			say("354 go ahead")
			w.Flush()
			if d.body, err = readData(r); err != nil {
				return
			}
			say("250 2.0.0 kept")
			k.got <- d
		case "BDAT":
			size, last, _ := strings.Cut(arg, " ")
			n, _ := strconv.Atoi(size)
			chunk := make([]byte, n)
			if _, err := io.ReadFull(r, chunk); err != nil {
				return
			}
			d.body = append(d.body, chunk...)
			say("250 2.0.0 kept")
			if last != "" {
				k.got <- d
			}
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
		line, err := r.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return body, err
		}
		body = append(body, strings.TrimPrefix(line, ".")...)
	}
}
