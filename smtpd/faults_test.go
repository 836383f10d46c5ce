package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"bsmtpd/metric"
	"bsmtpd/smtpd/strict"
)

const jansen = "a@customer.example"

// lines makes a body of about n octets, CRLF at its end.
func lines(n int) string {
	line := strings.Repeat("x", 70) + "\r\n"
	return "Subject: long\r\n\r\n" + strings.Repeat(line, n/len(line)+1)
}

func exactly(n int) string {
	b := lines(n)
	return b[:n-2] + "\r\n"
}

func TestOneOctetTooManyIsRefusedAtItsEnd(t *testing.T) {
	w := newWorld(t).serve()
	most := int(w.cfg.MaxMessage)
	big := exactly(most + 1)
	for _, send := range []string{
		"DATA\r\n" + big + ".\r\n",
		fmt.Sprintf("BDAT %d LAST\r\n%s", len(big), big),
		fmt.Sprintf("BDAT 100\r\n%sBDAT %d LAST\r\n%s", big[:100], len(big)-100, big[100:]),
	} {
		c := w.hello(jansen)
		go io.WriteString(c, send+"NOOP\r\n")
		r := c.reply()
		if strings.HasPrefix(r, "354") || strings.HasPrefix(r, "250 2.0.0 100 octets") {
			r = c.reply()
		}
		if !strings.HasPrefix(r, "552 5.3.4") {
			t.Errorf("got %q", r)
		}
		c.want("250") // NOOP: the rest of the message was no commands
		c.say("QUIT", "221")
		c.Close()
	}
	c := w.hello(jansen)
	defer c.Close()
	c.say("DATA", "354")
	go io.WriteString(c, exactly(most)+".\r\n")
	c.want("250 2.0.0 queued")
	if m := w.stored(); len(m) != 1 || !strings.HasSuffix(m[0].Body, exactly(most)) {
		t.Error("the largest message was not stored as it came")
	}
	c.say(fmt.Sprintf("MAIL FROM:<> SIZE=%d", most+1), "552 5.3.4")
	c.say("QUIT", "221")
	w.nothingLeft()
}

func TestEndlessMessageIsHungUpOn(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxMessage = 64 << 10
	w.serve()
	c := w.hello(jansen)
	defer c.Close()
	c.say("DATA", "354")
	go func() {
		for {
			if _, err := io.WriteString(c, lines(4096)); err != nil {
				return
			}
		}
	}()
	c.want("552 5.3.4")
	c.want("")
	w.nothingLeft()
}

func TestClientThatVanishesLeavesNothing(t *testing.T) {
	w := newWorld(t).serve()
	for _, send := range []string{"DATA\r\n" + lines(100), "DATA\r\n" + lines(1<<20), "BDAT 2000000 LAST\r\n" + lines(1<<20),
		"BDAT 10 LAST\r\n", "DATA\r\nx\r\n.", "RCPT TO"} {
		c := w.hello(jansen)
		c.send(send)
		c.Close()
	}
	w.nothingLeft()
	if m := w.stored(); len(m) != 0 {
		t.Errorf("%d messages were stored", len(m))
	}
}

func TestLargeMessageWaitsInAFileAndIsStoredWhole(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBodyMemory = 2 << 20
	w.serve()
	hold := make(chan struct{})
	w.hold = hold
	c := w.hello(jansen)
	defer c.Close()
	body := lines(3 << 20)
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body))
	for {
		if files, memory := w.left(); len(files) == 1 && memory == chunkBytes {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(hold)
	c.want("250 2.0.0 queued")
	if m := w.stored(); len(m) != 1 || !strings.HasSuffix(m[0].Body, body) {
		t.Error("the message changed")
	}
	c.say("QUIT", "221")
	w.nothingLeft()
	if w.counter("spilled_total", "") != 1 {
		t.Error("not counted as spilled")
	}
}

func TestLeftoversAreRemovedAtStart(t *testing.T) {
	w := newWorld(t)
	check(t, w.disk.MkdirAll("data/tmp", 0o755))
	for _, name := range []string{"smtpd-1.body", "other"} {
		f, err := w.disk.Create("data/tmp/"+name, "")
		check(t, err)
		check(t, f.Close())
	}
	w.serve()
	if files, _ := w.left(); len(files) != 1 || files[0] != "other" {
		t.Errorf("left: %v", files)
	}
}

func TestBodyMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBodyMemory, w.cfg.GreetWait = 1<<20, 0
	w.serve()
	var held []*client
	for range 64 { // a chunk each
		c := w.hello(jansen)
		defer c.Close()
		c.say("DATA", "354")
		held = append(held, c)
	}
	for w.srv.bodies.used.Load() < 1<<20 {
		time.Sleep(time.Millisecond)
	}
	c := w.hello(jansen)
	defer c.Close()
	go c.send("DATA\r\n" + lines(200<<10) + ".\r\n")
	if r := c.reply(); strings.HasPrefix(r, "354") {
		c.want("452 4.3.1")
	}
	if used := w.srv.bodies.used.Load(); used > 1<<20 {
		t.Errorf("%d octets in use", used)
	}
	for _, c := range held {
		c.say(".", "250")
		c.Close()
	}
}

func TestConnectionLimits(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxConnections, w.cfg.MaxPerAddress = 3, 2
	w.serve()
	a, b := w.dial(), w.dial()
	a.want("220")
	b.want("220")
	c := w.dial()
	c.want("421 4.7.0 mx.example too many connections from 127.0.0.1")
	c.want("")
	a.Close()
	for w.srv.gate.count() > 1 {
		time.Sleep(time.Millisecond)
	}
	d := w.dial()
	d.want("220")
	for _, c := range []*client{b, c, d} {
		c.Close()
	}
}

func TestGateCountsAnIPv6NetworkAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := bubble(t, func(c *Config) { c.MaxPerAddress, c.MaxConnections, c.GreetWait = 2, 3, 0 })
		for _, from := range []string{"2001:db8::1", "2001:db8::2"} {
			c := n.dial(t, from)
			c.want("220")
			defer c.Close()
		}
		c := n.dial(t, "2001:db8::3")
		c.want("421 4.7.0 mx.example too many connections from 2001:db8::3")
		c = n.dial(t, "2001:db8:0:1::1")
		c.want("220")
		defer c.Close()
		synctest.Wait()
		c = n.dial(t, "192.0.2.1")
		c.want("421 4.7.0 mx.example too many connections;")
		synctest.Wait()
		if w.counter("connections_total", connBusy) != 1 || w.counter("connections_total", connBusyAddress) != 1 {
			t.Error("not counted")
		}
	})
}

// bubble is a world on a made-up network and clock.
func bubble(t *testing.T, change func(*Config)) (*world, *pipeNet) {
	w := newWorld(t)
	n := newPipeNet()
	w.net = n
	change(&w.cfg)
	w.serve()
	return w, n
}

func TestEarlyTalkerIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := bubble(t, func(*Config) {})
		began := time.Now()
		polite := n.dial(t, "192.0.2.1")
		defer polite.Close()
		polite.want("220")
		if d := time.Since(began); d != 500*time.Millisecond {
			t.Errorf("greeted after %s", d)
		}
		near := n.dial(t, "10.1.2.3")
		defer near.Close()
		began = time.Now()
		near.want("220")
		if time.Since(began) != 0 {
			t.Error("a private network waited for its greeting")
		}
		rude := n.dial(t, "192.0.2.2")
		defer rude.Close()
		go rude.Write([]byte("EHLO spam\r\n"))
		rude.want("554 5.5.1 protocol error: you spoke before the greeting")
		rude.want("")
		synctest.Wait()
		if w.counter("connections_total", connEarly) != 1 || w.counter("refused_total", string(strict.Early)) != 1 {
			t.Error("not counted")
		}
	})
}

func TestSlowLorisIsHungUpOn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first string
		after time.Duration // when the session must have ended, at the latest
		least time.Duration
	}{
		{"silent", "", 5*time.Minute + time.Second, 5 * time.Minute},
		{"a command octet by octet", "EHLO client.example\r\n", 5*time.Minute + time.Second, 5 * time.Minute},
		{"a message octet by octet", "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nDATA\r\n", 6 * time.Minute, 5 * time.Minute},
		{"a chunk octet by octet", "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nBDAT 9999\r\n", 6 * time.Minute, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, n := bubble(t, func(c *Config) { c.GreetWait = 0 })
				c := n.dial(t, "192.0.2.1")
				defer c.Close()
				began := time.Now()
				var heard bytes.Buffer
				done := make(chan struct{})
				go func() {
					defer close(done)
					io.Copy(&heard, c)
				}()
				if tt.first != "" {
					c.send(tt.first)
					go func() {
						for {
							if _, err := c.Write([]byte("x")); err != nil {
								return
							}
							time.Sleep(20 * time.Second)
						}
					}()
				}
				<-done
				if d := time.Since(began); d < tt.least || d > tt.after {
					t.Errorf("ended after %s", d)
				}
				if !strings.HasSuffix(heard.String(), "421 4.4.2 too slow: closing the connection\r\n") {
					t.Errorf("heard %q", heard.String())
				}
				synctest.Wait()
				time.Sleep(time.Minute)
				w.nothingLeft()
			})
		})
	}
}

func TestSessionEndsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n := bubble(t, func(c *Config) { c.GreetWait, c.MaxJunk = 0, 1e6 })
		c := n.dial(t, "192.0.2.1")
		defer c.Close()
		began := time.Now()
		c.want("220")
		for {
			time.Sleep(30 * time.Second)
			go c.Write([]byte("NOOP\r\n"))
			if r := c.reply(); !strings.HasPrefix(r, "250") {
				break
			}
		}
		if d := time.Since(began); d < 2*time.Hour || d > 2*time.Hour+time.Minute {
			t.Errorf("ended after %s", d)
		}
	})
}

func TestProxyHeaderGivesTheTrueClient(t *testing.T) {
	src := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 4321}
	dst := &net.TCPAddr{IP: net.ParseIP("198.51.100.1"), Port: 25}
	v2, err := proxyproto.HeaderProxyFromAddrs(2, src, dst).Format()
	check(t, err)
	for name, header := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.7 198.51.100.1 4321 25\r\n", "v2": string(v2),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.Proxies = []string{"127.0.0.0/8"}
			w.cfg.GreetWait = time.Millisecond
			w.serve()
			c := w.dial()
			defer c.Close()
			c.send(header)
			c.want("220")
			c.say("EHLO client", "250")
			c.envelope(jansen)
			c.say("DATA", "354")
			c.say(".", "250")
			if m := w.stored(); !strings.Contains(m[0].Body, "from client ([192.0.2.7])") {
				t.Error(m[0].Body)
			}
			rude := w.dial()
			defer rude.Close()
			rude.send(header + "EHLO spam\r\n")
			rude.want("554 5.5.1")
		})
	}
}

func TestProxyHeaderIsRequiredOfProxiesAndOfNobodyElse(t *testing.T) {
	w := newWorld(t)
	w.cfg.Proxies = []string{"127.0.0.1"}
	w.serve()
	c := w.dial()
	defer c.Close()
	c.send("EHLO client\r\n")
	c.want("")
	for w.counter("connections_total", connProxy) != 1 {
		time.Sleep(time.Millisecond)
	}
	health := w.dial() // the balancer's own check
	defer health.Close()
	health.send("PROXY UNKNOWN\r\n")
	health.want("220")

	w = newWorld(t).serve()
	c = w.dial()
	defer c.Close()
	c.want("220")
	c.say("PROXY TCP4 192.0.2.7 198.51.100.1 4321 25", "500 5.5.2")
}

func TestPanicEndsOneSession(t *testing.T) {
	w := newWorld(t).serve()
	other := w.hello(jansen)
	defer other.Close()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<a@panic.example>", "421 4.3.0")
	c.want("")
	other.say("DATA", "354")
	other.say(".", "250")
	for _, send := range []string{"DATA\r\nx\r\n.\r\n", "BDAT 1 LAST\r\nx"} {
		c := w.hello()
		defer c.Close()
		c.say("MAIL FROM:<panic@world.example>", "250")
		c.say("RCPT TO:<a@customer.example>", "250")
		c.send(send)
		if strings.HasPrefix(send, "DATA") {
			c.want("354")
		}
		c.want("421 4.3.0")
		c.want("")
	}
	if w.panics() != 3 {
		t.Errorf("%v panics counted", w.panics())
	}
}

func TestTooManyErrorsEndTheSession(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxErrors, w.cfg.MaxRefused, w.cfg.MaxJunk, w.cfg.MaxMessages = 3, 2, 10, 2
	w.serve()
	c := w.hello()
	defer c.Close()
	for range 3 {
		c.say("NONSENSE", "500")
	}
	c.want("421 4.7.0 too many errors")
	c.want("")

	c = w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<1@elsewhere.example>", "554")
	c.say("RCPT TO:<2@provider.example>", "550")
	c.say("RCPT TO:<3@provider.example>", "421 4.7.0 too many refused")
	c.want("")

	c = w.hello()
	defer c.Close()
	for range 9 { // EHLO was the first
		c.say("NOOP", "250")
	}
	c.say("NOOP", "421 4.7.0")
	c.want("")

	c = w.hello()
	defer c.Close()
	for range 2 {
		c.envelope(jansen)
		c.say("DATA", "354")
		c.say(".", "250")
	}
	c.say("MAIL FROM:<>", "421 4.7.0 enough messages")
	c.want("")
}

func TestLongCommandLine(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	c.say("NOOP "+strings.Repeat("x", 4089), "250")
	c.say("NOOP "+strings.Repeat("x", 4090), "500 5.5.2")
	c.say("NOOP "+strings.Repeat("x", 20_000), "500 5.5.2")
	c.say("NOOP", "250")
	go io.WriteString(c, strings.Repeat("x", 1<<20))
	c.want("500 5.5.2")
	c.want("")
}

func TestStopLetsAMessageFinish(t *testing.T) {
	w := newWorld(t).serve()
	idle, busy, storing := w.hello(), w.hello(jansen), w.hello(jansen)
	defer idle.Close()
	defer busy.Close()
	defer storing.Close()
	busy.say("DATA", "354")
	busy.send("half a line")
	hold := make(chan struct{})
	w.mu.Lock()
	w.hold = hold
	w.mu.Unlock()
	storing.say("DATA", "354")
	storing.send(".\r\n")
	time.Sleep(20 * time.Millisecond)
	stopped := make(chan struct{})
	go func() {
		w.stop()
		close(stopped)
	}()
	idle.want("421 4.3.2")
	busy.send(" and the rest\r\n.\r\n")
	time.Sleep(10 * time.Millisecond)
	close(hold)
	busy.want("250 2.0.0 queued")
	storing.want("250 2.0.0 queued")
	busy.want("421 4.3.2")
	<-stopped
	if len(w.stored()) != 2 {
		t.Error("not stored")
	}
}

func TestStopDoesNotWaitForASlowMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := bubble(t, func(c *Config) { c.GreetWait = 0 })
		c := n.dial(t, "192.0.2.1")
		defer c.Close()
		go io.Copy(io.Discard, c)
		c.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nDATA\r\nx")
		synctest.Wait()
		began := time.Now()
		w.stop()
		if d := time.Since(began); d != w.cfg.StopTimeout {
			t.Errorf("stopped after %s", d)
		}
		w.nothingLeft()
	})
}

func TestEnqueueOutlivesItsClientButNotItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := bubble(t, func(c *Config) { c.GreetWait = 0 })
		w.hold = make(chan struct{})
		c := n.dial(t, "192.0.2.1")
		done := make(chan string)
		go func() {
			b, _ := io.ReadAll(c)
			done <- string(b)
		}()
		c.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nDATA\r\n.\r\n")
		began := time.Now()
		go func() {
			time.Sleep(time.Minute)
			c.Close()
		}()
		heard := <-done
		if !strings.Contains(heard, "<CR><LF>.<CR><LF>\r\n451 4.3.0") {
			t.Errorf("heard %q", heard)
		}
		if time.Since(began) != time.Minute {
			t.Error("the session ended early")
		}
		// And one whose client has gone: the outcome is in the log.
		c = n.dial(t, "192.0.2.1")
		go io.Copy(io.Discard, c)
		c.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nDATA\r\n.\r\n")
		synctest.Wait()
		c.Close()
		close(w.hold)
		synctest.Wait()
		if len(w.stored()) != 1 || !strings.Contains(w.log.String(), "msg=queued") {
			t.Error("not stored or not logged")
		}
	})
}

func TestPortInUseIsSaidClearly(t *testing.T) {
	w := newWorld(t).serve()
	taken := w.srv.Addrs()[0].String()
	x := newWorld(t)
	x.cfg.Listen = []string{"127.0.0.1:0", taken}
	s, err := New(x.cfg, Deps{Host: w.srv.deps.Host, TempDir: "tmp", Log: w.srv.log, Metrics: metric.New()})
	check(t, err)
	err = s.Listen()
	if err == nil || !strings.Contains(err.Error(), "smtpd.listen: cannot take mail at "+taken) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
