package main

import (
	"bufio"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// arrival is a message at a customer's server.
type arrival struct {
	to        string    // its first recipient
	connected time.Time // its connection
	hello     time.Time // the first command, the first octets that the server sends
	done      time.Time // its end
}

// customers are many customers' servers, which offer the same extensions. They
// throw the mail away.
type customers struct {
	extensions []string
	took       func(arrival) // called for every message before it is answered
	listeners  []net.Listener
	wg         sync.WaitGroup

	mu   sync.Mutex // guards what follows
	open map[net.Conn]bool
	shut bool
}

// startCustomers listens on all the addresses.
func startCustomers(addrs []string, took func(arrival), extensions ...string) (*customers, error) {
	k := &customers{extensions: append(extensions, "8BITMIME"), took: took, open: map[net.Conn]bool{}}
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			k.stop()
			return nil, err
		}
		k.listeners = append(k.listeners, l)
		k.wg.Go(func() { k.serve(l) })
	}
	return k, nil
}

func (k *customers) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		k.mu.Lock()
		if k.shut {
			c.Close()
		} else {
			k.open[c] = true
			k.wg.Go(func() { k.converse(c) })
		}
		k.mu.Unlock()
	}
}

func (k *customers) stop() {
	for _, l := range k.listeners {
		l.Close()
	}
	k.mu.Lock()
	k.shut = true
	for c := range k.open {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
}

// conversation is one connection.
type conversation struct {
	k   *customers
	r   *bufio.Reader
	w   *bufio.Writer
	now arrival
}

func (k *customers) converse(c net.Conn) {
	defer func() {
		c.Close()
		k.mu.Lock()
		delete(k.open, c)
		k.mu.Unlock()
	}()
	t := conversation{k: k, r: bufio.NewReaderSize(c, 16<<10), w: bufio.NewWriter(c), now: arrival{connected: time.Now()}}
	t.say("220 customer.example ESMTP")
	for {
		text, err := t.r.ReadString('\n')
		if t.now.hello.IsZero() {
			t.now.hello = time.Now()
		}
		if err != nil || !t.command(strings.TrimRight(text, "\r\n")) {
			t.w.Flush()
			return
		}
	}
}

// say gives a reply; replies to commands that came together leave together.
func (t *conversation) say(text string) {
	t.w.WriteString(text + "\r\n")
	if t.r.Buffered() == 0 {
		t.w.Flush()
	}
}

// command answers one; false: the conversation is over.
func (t *conversation) command(text string) bool {
	verb, arg, _ := strings.Cut(text, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		t.say("250-customer.example\r\n250-" + strings.Join(t.k.extensions, "\r\n250-") + "\r\n250 ENHANCEDSTATUSCODES")
	case "MAIL":
		t.now.to = ""
		t.say("250 2.1.0 ok")
	case "RCPT":
		if t.now.to == "" {
			t.now.to = between(arg, '<', '>')
		}
		t.say("250 2.1.5 ok")
	case "DATA":
		t.say("354 go ahead")
		t.w.Flush()
		if !t.skipData() {
			return false
		}
		t.kept()
	case "BDAT":
		size, last, _ := strings.Cut(arg, " ")
		n, err := strconv.Atoi(size)
		if err != nil {
			return false
		}
		if _, err := t.r.Discard(n); err != nil {
			return false
		}
		if last == "" {
			t.say("250 2.0.0 ok")
		} else {
			t.kept()
		}
	case "QUIT":
		t.say("221 2.0.0 bye")
		return false
	default:
		t.say("250 2.0.0 ok")
	}
	return true
}

func (t *conversation) kept() {
	t.now.done = time.Now()
	t.k.took(t.now)
	t.say("250 2.0.0 kept")
}

// skipData reads a message to its final dot.
func (t *conversation) skipData() bool {
	whole := true // what was read last ended with its line
	for {
		b, err := t.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		if whole && string(b) == ".\r\n" {
			return true
		}
		whole = err == nil
	}
}

// between is what stands between two characters, or nothing.
func between(s string, open, shut byte) string {
	i := strings.IndexByte(s, open)
	j := strings.IndexByte(s, shut)
	if i < 0 || j < i {
		return ""
	}
	return s[i+1 : j]
}
