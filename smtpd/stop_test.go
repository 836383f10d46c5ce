package smtpd

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/metric"
)

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
