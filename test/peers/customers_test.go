package peers

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// quick are timeouts with which a server that hangs is given up soon.
var quick = settings{
	"delivery.connect_timeout": "1s", "delivery.greeting_timeout": "1s", "delivery.command_timeout": "1s", "delivery.data_timeout": "1s",
	"delivery.stop_timeout": "1s",
}

// script plays a customer's server: each word is the reply to the next line of the
// client; "hang" says nothing more, "close" hangs up, "data" reads a message to its
// end. A client's BDAT and its octets are not understood: it is not offered.
func script(words ...string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for i, w := range words {
			if i > 0 && w != "close" {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
			}
			switch w {
			case "hang":
				io.Copy(io.Discard, r)
				return
			case "close":
				return
			case "data":
				fmt.Fprint(c, "354 go ahead\r\n")
				if _, err := readData(r); err != nil {
					return
				}
			case "-":
			default:
				fmt.Fprint(c, w+"\r\n")
			}
		}
		io.Copy(io.Discard, r)
	}
}

// brokenServer is a customer's server, and what is told of it.
type brokenServer struct {
	serve func(net.Conn)
	says  string // in the queue's last words, or the message's
}

func brokenServers() map[string]brokenServer {
	hello := []string{"220 customer.example", "250 customer.example"}
	after := func(words ...string) func(net.Conn) { return script(append(hello[:2:2], words...)...) }
	endless := func(line string) func(net.Conn) {
		return func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		}
	}
	return map[string]brokenServer{
		"says nothing":          {script("hang", "hang"), "no sign of life"},
		"closes at once":        {script("close"), "closed the connection"},
		"octets of chance":      {func(c net.Conn) { io.CopyN(c, rand.Reader, 100_000) }, ""},
		"a web server":          {script("HTTP/1.1 400 Bad Request"), ""},
		"an endless banner":     {endless("220-and another thing\r\n"), ""},
		"an endless line":       {endless("220 no end in sight, "), ""},
		"refuses":               {script("554 no mail here"), "554 no mail here"},
		"is busy":               {script("421 4.3.2 come back later"), "421 4.3.2 come back later"},
		"speaks out of turn":    {script("220 customer.example\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 ok\r\n250 ok"), ""},
		"knows no HELO":         {script("220 customer.example", "502 what?", "502 what?"), "502 what?"},
		"hangs at MAIL":         {after("hang"), "no sign of life"},
		"hangs at DATA":         {after("250 ok", "250 ok", "hang"), "no sign of life"},
		"hangs at the end":      {after("250 ok", "250 ok", "data", "hang"), "no sign of life"},
		"leaves at the end":     {after("250 ok", "250 ok", "data", "close"), "closed the connection"},
		"defers the sender":     {after("451 4.7.1 greylisted", "hang"), "451 4.7.1 greylisted"},
		"answers with nonsense": {after("250 ok", "99 problems", "hang"), ""},
		"takes data for mail":   {after("354 go ahead", "hang"), ""},
	}
}

// Customers' servers that are broken in all kinds of ways: the mail stays, the
// reason is told, and once the server is well everything is pushed.
func TestABrokenServerOfACustomerLosesNothing(t *testing.T) {
	t.Parallel()
	servers := brokenServers()
	s := serve(t, quick)
	c := call(t, s.smtp()).hello()
	logins := map[string]string{}
	for name, v := range servers {
		login := fmt.Sprintf("c%d", len(logins))
		logins[name] = login
		s.customer(login, listen(t, "127.0.0.1:0", v.serve))
		taken(t, c.data(text(name, "info@"+login+".example")))
	}
	for name, v := range servers {
		login := logins[name]
		until(t, "an attempt to the server that "+name+" has ended", func() bool {
			q := s.queue(login)
			return q.Active == "" && !q.LastAttempt.IsZero()
		})
		q := s.queue(login)
		words := q.LastWords
		for _, r := range s.rows(login) {
			words += " / " + r.Recipients[0].DelayReason
		}
		if q.Messages != 1 || !strings.Contains(words, v.says) || words == " / " {
			t.Errorf("the server that %s: %d messages wait because of %q, want one because of %q", name, q.Messages, words, v.says)
		}
		if q.NextAttempt.IsZero() || time.Until(q.NextAttempt) > 21*time.Minute {
			t.Errorf("the server that %s: the next attempt is at %s", name, q.NextAttempt)
		}
		t.Logf("%-22s %s", name, words)
	}
	k := newSink(t)
	for _, login := range logins {
		s.cli("account", "set", login, "--route", k.addr)
	}
	s.cli("queue", "retry", "ALL")
	got := map[string]bool{}
	for range servers {
		_, subject, _ := strings.Cut(string(k.next().body), "\r\nSubject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		got[subject] = true
	}
	for name := range servers {
		if !got[name] {
			t.Errorf("the mail for the server that %s never came", name)
		}
	}
	s.works()
}

// What a customer's server refuses for good goes back to its sender in its words.
func TestARefusalByTheCustomersServerGoesBack(t *testing.T) {
	t.Parallel()
	s := serve(t, quick)
	s.customer("jansen", listen(t, "127.0.0.1:0", script("220 customer.example", "250 customer.example", "250 ok", "550 5.1.1 nobody of that name", "hang", "hang")))
	s.customer("pietersen", "127.0.0.1:1")
	taken(t, s.send(text("to nobody", "nobody@jansen.example")))
	s.drained("jansen")
	s.keeps("pietersen", 1)
	mentions(t, s.body(s.rows("pietersen")[0].QueueID), "Status: 5.1.1", "550 5.1.1 nobody of that name", "Action: failed", "Final-Recipient: rfc822;nobody@jansen.example")
	s.works()
}

// A route that leads back to this server would make a loop without end.
func TestARouteToTheServerItselfIsNoticed(t *testing.T) {
	t.Parallel()
	s := serve(t, settings{"node.hostname": "mx.provider.example", "delivery.connect_timeout": "2s"})
	_, port, _ := strings.Cut(s.smtp(), ":")
	// A forwarder in between hides the address, not the name in the greeting.
	forwarder := listen(t, "127.0.0.1:0", func(c net.Conn) {
		to, err := net.Dial("tcp", s.smtp())
		if err != nil {
			return
		}
		defer to.Close()
		go func() {
			io.Copy(to, c)
			to.Close()
		}()
		io.Copy(c, to)
	})
	for login, route := range map[string]string{"straight": s.smtp(), "byname": "localhost:" + port, "around": forwarder} {
		s.customer(login, route)
		taken(t, s.send(text("round and round", "info@"+login+".example")))
		s.keeps(login, 1)
		q := s.queue(login)
		mentions(t, q.LastWords, "loops back to this server", "change the route")
		if q.Failures != 1 {
			t.Errorf("%s: %d attempts", login, q.Failures)
		}
		if got := strings.Count(s.body(s.rows(login)[0].QueueID), "Received: "); got != 1 {
			t.Errorf("%s: the message has passed %d servers", login, got)
		}
	}
	s.works()
}
