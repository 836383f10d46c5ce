package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// customerServer is the mail server behind Jansen's line. It keeps its port while
// it is down: nobody else gets it, and connections are refused.
type customerServer struct {
	addr string
	mail chan string // subjects, in the order in which they came

	mu  sync.Mutex
	srv *smtp.Server
}

// reserve chooses the port, below those that the system gives to clients: no
// connection may take it while the server is down.
func (c *customerServer) reserve(rng *rand.Rand) error {
	c.mail = make(chan string, 100)
	var err error
	for range 100 {
		c.addr = fmt.Sprintf("127.0.0.1:%d", 20_000+rng.IntN(12_000))
		var l net.Listener
		if l, err = net.Listen("tcp", c.addr); err == nil {
			return l.Close()
		}
	}
	return err
}

func (c *customerServer) start() error {
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.srv = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return customerSession{c}, nil }))
	c.srv.Domain = "mail.jansen.example"
	go c.srv.Serve(l)
	return nil
}

func (c *customerServer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.srv.Close()
}

type customerSession struct{ c *customerServer }

var _ smtp.Session = customerSession{}

func (s customerSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s customerSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s customerSession) Reset()                               {}
func (s customerSession) Logout() error                        { return nil }

func (s customerSession) Data(r io.Reader) error {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, m.Body); err != nil {
		return err
	}
	s.c.mail <- m.Header.Get("Subject")
	return nil
}

// send hands a message to the demo's server over SMTP and shows what it said.
func (d *demonstration) send(from, subject string, size int, to ...string) (string, error) {
	conn, err := d.dial()
	if err != nil {
		return "", err
	}
	c := smtp.NewClient(conn)
	defer c.Close()
	reply, err := transfer(c, from, subject, size, to)
	var refused *smtp.SMTPError
	if errors.As(err, &refused) {
		reply, err = fmt.Sprintf("%d %d.%d.%d %s", refused.Code, refused.EnhancedCode[0], refused.EnhancedCode[1], refused.EnhancedCode[2], refused.Message), nil
	}
	if err != nil {
		return "", err
	}
	fmt.Fprintf(d.out, "%s -> %s: %q\n    %s\n", from, strings.Join(to, ", "), subject, reply)
	d.out.Flush()
	return reply, nil
}

func transfer(c *smtp.Client, from, subject string, size int, to []string) (string, error) {
	if err := c.Mail(from, nil); err != nil {
		return "", err
	}
	for _, t := range to {
		if err := c.Rcpt(t, nil); err != nil {
			return "", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%d@demo.example>\r\n\r\n", from,
		strings.Join(to, ">, <"), subject, time.Now().Format(time.RFC1123Z), time.Now().UnixNano())
	line := strings.Repeat("All is well here. ", 4) + "\r\n"
	for n := 0; n < size; n += len(line) {
		if _, err := io.WriteString(w, line); err != nil {
			return "", err
		}
	}
	done, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	return "250 " + done.StatusText, c.Quit()
}
