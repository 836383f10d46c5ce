package smtpd

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
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
