package smtpd

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Messages that were sent ahead may take long to be stored. What became of the
// first is not held back until then: the client would give up and send it again.
func TestOneMessageIsAnsweredBeforeTheNextIsStored(t *testing.T) {
	w := newWorld(t).serve()
	hold := make(chan struct{}, 1)
	hold <- struct{}{}
	w.mu.Lock()
	w.hold = hold
	w.mu.Unlock()
	c := w.hello()
	defer c.Close()
	one := "MAIL FROM:<>\r\nRCPT TO:<" + jansen + ">\r\nBDAT 1 LAST\r\nx"
	c.send(one + one)
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.0.0 queued", "250 2.1.0", "250 2.1.5"} {
		c.want(want)
	}
	if n := len(w.stored()); n != 1 {
		t.Errorf("%d messages are stored", n)
	}
	close(hold)
	c.want("250 2.0.0 queued")
}

// Past stop_timeout a connection is closed, unless its message is being stored:
// its client hears so, and what it sent ahead is not begun.
func TestStopAnswersForAMessageThatIsBeingStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := bubble(t, func(c *Config) { c.GreetWait = 0 })
		w.hold = make(chan struct{})
		c := n.dial(t, "192.0.2.1")
		c.want("220")
		next := "MAIL FROM:<>\r\nRCPT TO:<" + jansen + ">\r\nBDAT %d LAST\r\nx"
		c.send("EHLO c\r\n" + fmt.Sprintf(next, 1) + fmt.Sprintf(next, 9))
		synctest.Wait()
		began := time.Now()
		go func() {
			time.Sleep(w.cfg.StopTimeout + 5*time.Second)
			close(w.hold)
		}()
		go w.stop()
		for _, want := range []string{"250", "250 2.1.0", "250 2.1.5", "250 2.0.0 queued", "421 4.3.2", ""} {
			c.want(want)
		}
		if d := time.Since(began); d != w.cfg.StopTimeout+5*time.Second {
			t.Errorf("ended after %s", d)
		}
		if got := w.stored(); len(got) != 1 || !strings.HasSuffix(got[0].Body, "\r\nx") {
			t.Errorf("stored %d messages", len(got))
		}
		w.nothingLeft()
	})
}

// Clients who send half a message and then nothing do not keep out the mail of
// others.
func TestUnfinishedMessagesLeaveMemoryToOthers(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBodyMemory, w.cfg.GreetWait = 1<<20, 0
	w.serve()
	var slow []*client
	for range 8 {
		c := w.hello(jansen)
		defer c.Close()
		c.say("DATA", "354")
		c.send(lines(250 << 10))
		slow = append(slow, c)
	}
	for end := time.Now().Add(10 * time.Second); w.counter("spilled_total", "") < 4 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	c := w.hello(jansen)
	defer c.Close()
	c.say("DATA", "354")
	c.say("x\r\n.", "250")
	for _, c := range slow {
		c.say(".", "250")
		c.say("QUIT", "221")
	}
	c.say("QUIT", "221")
	for _, m := range w.stored() {
		if !strings.HasSuffix(m.Body, "\r\nx\r\n") && !strings.HasSuffix(m.Body, lines(250<<10)) {
			t.Errorf("a message of %d octets changed", len(m.Body))
		}
	}
	w.nothingLeft()
}
