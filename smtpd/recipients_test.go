package smtpd

import (
	"bytes"
	"fmt"
	"testing"
)

func TestTenThousandRecipients(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<list@world.example>", "250")
	go func() {
		var b bytes.Buffer
		for i := range 10_000 {
			fmt.Fprintf(&b, "RCPT TO:<r%d@customer.example>\r\n", i)
		}
		b.WriteString("DATA\r\n")
		c.Write(b.Bytes())
	}()
	for i := range 10_000 {
		if i < 1000 {
			c.want("250 2.1.5")
		} else {
			c.want("452 4.5.3")
		}
	}
	c.want("354")
	c.say(".", "250 2.0.0 queued")
	c.say("QUIT", "221")
	if m := w.stored(); len(m) != 1 || len(m[0].Targets) != 1 || len(m[0].Targets[0].To) != 1000 {
		t.Errorf("stored %d messages", len(m))
	}
	w.nothingLeft()
}

// An address that is named again is no further recipient, but go-smtp remembers
// it each time.
func TestTheSameRecipientCannotBeNamedForEver(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxRecipients = 100
	w.serve()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	for i := range 210 {
		want := "250 2.1.5"
		if i >= 200 {
			want = "452 4.5.3"
		}
		c.say("RCPT TO:<"+jansen+">", want)
	}
}

func TestPostmasterWithoutAnAddress(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<postmaster>", "550 5.1.1 <postmaster>: no address is configured for it")
}

// An @ within quotes is no part of the domain; go-smtp takes the quotes off.
func TestQuotesDoNotOpenTheRelay(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	c.say(`RCPT TO:<"a@customer.example"@elsewhere.example>`, "554 5.7.1")
	c.say(`RCPT TO:<a@elsewhere.example@customer.example>`, "501 5.5.2")
	c.say(`RCPT TO:<"a@elsewhere.example"@customer.example>`, "250")
	c.say("DATA", "354")
	c.say(".", "250")
	if to := w.stored()[0].Targets[0].To[0].Address; to != `"a@elsewhere.example"@customer.example` {
		t.Errorf("stored for %s", to)
	}
}
