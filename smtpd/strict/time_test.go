package strict

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a world on a made-up clock.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

func TestSlowClientsAreHungUpOn(t *testing.T) {
	for _, tt := range []struct {
		name, first string
		least, most time.Duration
	}{
		{"silent", "", 5 * time.Minute, 5 * time.Minute},
		{"a command octet by octet", hello, 5 * time.Minute, 5 * time.Minute},
		{"a message octet by octet", hello + envelope + "DATA\r\n", 5 * time.Minute, 6 * time.Minute},
		{"a chunk octet by octet", hello + envelope + "BDAT 9999\r\n", 5 * time.Minute, 6 * time.Minute},
		{"a refused chunk octet by octet", hello + "BDAT 9999\r\n", 5 * time.Minute, 6 * time.Minute},
		{"chunks of an octet", hello + envelope + "BDAT 1\r\nx", 5 * time.Minute, 6 * time.Minute},
		{"silent between chunks", hello + envelope + "BDAT 1\r\nx", 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := w.dial(t)
				began := time.Now()
				more := "x"
				if tt.name == "chunks of an octet" {
					more = "BDAT 1\r\nx"
				}
				go func() {
					io.WriteString(c.Conn, tt.first)
					for tt.first != "" && !strings.HasPrefix(tt.name, "silent") {
						if _, err := io.WriteString(c.Conn, more); err != nil {
							return
						}
						time.Sleep(20 * time.Second)
					}
				}()
				heard, _ := io.ReadAll(c.in)
				if d := time.Since(began); d < tt.least || d > tt.most {
					t.Errorf("ended after %s", d)
				}
				if !strings.HasSuffix(string(heard), "421 4.4.2 too slow: closing the connection\r\n") {
					t.Errorf("heard %q", heard)
				}
				time.Sleep(time.Minute) // for the client to notice
			})
		})
	}
}

// The wait counts from the client's last word, however soon that came after the
// one before.
func TestAClientMayBeSilentForTheWholeWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.dial(t)
		c.say(hello, "250")
		time.Sleep(30 * time.Second)
		c.say("NOOP\r\n", "250")
		time.Sleep(5*time.Minute - time.Second)
		c.say("NOOP\r\n", "250")
		began := time.Now()
		c.want("421 4.4.2")
		if d := time.Since(began); d != 5*time.Minute {
			t.Errorf("hung up on after %s", d)
		}
		c.want("")
	})
}

func TestASteadyClientMayTakeItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.MaxMessage = 1 << 20
		c := w.dial(t)
		c.say(hello, "250")
		c.say("MAIL FROM:<>\r\n", "250")
		c.say("RCPT TO:<d@e.example>\r\n", "250")
		c.say("DATA\r\n", "354")
		for range 20 {
			time.Sleep(time.Minute)
			for range 400 {
				io.WriteString(c.Conn, strings.Repeat("x", 98)+"\r\n")
			}
		}
		c.say(".\r\n", "250")
	})
}

func TestSessionsEndAtTheirTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		began := time.Now()
		c := w.dial(t)
		for time.Since(began) < 2*time.Hour-time.Minute {
			c.say("NOOP\r\n", "250")
			time.Sleep(4 * time.Minute)
		}
		c.want("421 4.4.2")
		c.want("")
		if d := time.Since(began); d != 2*time.Hour {
			t.Errorf("ended after %s", d)
		}
	})
}

func TestEarlyTalkersAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		here, there := net.Pipe()
		c := New(there, &w.cfg, &w.pool, w)
		began := time.Now()
		if err := c.Early(time.Second); err != nil || time.Since(began) != time.Second {
			t.Errorf("a client that waits: %v after %s", err, time.Since(began))
		}
		w.l.queue <- c
		in := io.LimitReader(here, 4)
		if b, _ := io.ReadAll(in); string(b) != "220 " {
			t.Errorf("heard %q", b)
		}
		here.Close()

		for _, unread := range []bool{true, false} {
			here, there = net.Pipe()
			c = New(there, &w.cfg, &w.pool, w)
			if unread {
				c.Unread([]byte("EHLO spam\r\n"))
			} else {
				go io.WriteString(here, "EHLO spam\r\n")
			}
			var f *Fault
			if err := c.Early(time.Second); !errors.As(err, &f) || f.Cause != Early {
				t.Errorf("a client that does not wait: %v", err)
			}
			go c.Close()
			if b, _ := io.ReadAll(here); string(b) != "554 5.5.1 protocol error: you spoke before the greeting\r\n" {
				t.Errorf("heard %q", b)
			}
			synctest.Wait()
		}
		here, there = net.Pipe()
		c = New(there, &w.cfg, &w.pool, w)
		here.Close()
		if err := c.Early(time.Second); err != ErrGone {
			t.Errorf("a client that leaves: %v", err)
		}
		c.Close()
	})
}

func TestStopWaitsForMessagesAndForNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pipe := func(say string) (net.Conn, *Conn) {
			here, there := net.Pipe()
			c := w.serve(there)
			go io.WriteString(here, say)
			return here, c
		}
		idle, a := pipe(hello)
		busy, b := pipe(hello + envelope + "DATA\r\nx\r\n")
		between, c := pipe(hello + envelope + "BDAT 1\r\nx")
		heard := make(chan [2]string, 3)
		for name, conn := range map[string]net.Conn{"idle": idle, "busy": busy, "between": between} {
			go func() {
				b, _ := io.ReadAll(conn)
				heard <- [2]string{name, string(b)}
			}()
		}
		synctest.Wait()
		for _, c := range []*Conn{a, b, c} {
			c.Stop()
		}
		const bye = "421 4.3.2 this server is shutting down; try again soon\r\n"
		for range 2 {
			if h := <-heard; h[0] == "busy" || !strings.HasSuffix(h[1], bye) {
				t.Errorf("%s heard %q", h[0], h[1])
			}
		}
		io.WriteString(busy, "y\r\n.\r\n")
		if h := <-heard; !strings.HasSuffix(h[1], "250 2.0.0 OK: queued\r\n"+bye) {
			t.Errorf("heard %q", h[1])
		}
		if got := w.bodies(); len(got) != 1 || got[0] != "x\r\ny\r\n" {
			t.Errorf("kept %q", got)
		}
	})
}

func TestFinishWaitsForNoMessage(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		here, there := net.Pipe()
		c := w.serve(there)
		go io.WriteString(here, hello+envelope+"DATA\r\nx\r\n")
		heard := make(chan string)
		go func() {
			b, _ := io.ReadAll(here)
			heard <- string(b)
		}()
		synctest.Wait()
		began := time.Now()
		c.Finish()
		if h := <-heard; !strings.HasSuffix(h, "\r\n421 4.3.2 this server is shutting down; try again soon\r\n") || time.Since(began) > 0 {
			t.Errorf("heard %q after %s", h, time.Since(began))
		}
		if got := w.bodies(); len(got) > 0 {
			t.Errorf("kept %q", got)
		}
	})
}

func TestAbortEndsEvenAMessage(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		here, there := net.Pipe()
		c := w.serve(there)
		go io.Copy(io.Discard, here)
		io.WriteString(here, hello+envelope+"DATA\r\nx\r\n")
		synctest.Wait()
		c.Abort()
		synctest.Wait()
		if len(w.bodies()) > 0 || len(w.panics) > 0 {
			t.Errorf("kept %q, panics %v", w.bodies(), w.panics)
		}
	})
}

// go-smtp's server closes its connections from outside.
func TestCloseFromOutside(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		here, there := net.Pipe()
		c := w.serve(there)
		go io.Copy(io.Discard, here)
		io.WriteString(here, hello+envelope+"DATA\r\nx\r\n")
		synctest.Wait()
		check(t, c.Close())
		synctest.Wait()
		if _, err := c.Read(nil); err == nil {
			t.Error("a closed connection can be read")
		}
	})
}
