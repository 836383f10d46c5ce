package smtpd

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"bsmtpd/smtpd/strict"
)

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
