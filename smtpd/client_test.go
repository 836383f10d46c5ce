package smtpd

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// go-smtp's client understands what its server says behind our wire.
func TestAnotherClientIsUnderstood(t *testing.T) {
	w := withTLS(t)
	c, err := smtp.Dial(w.srv.Addrs()[0].String())
	check(t, err)
	defer c.Close()
	check(t, c.Hello("client.example"))
	for _, ext := range []string{"SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS"} {
		if ok, _ := c.Extension(ext); !ok {
			t.Errorf("%s is not offered", ext)
		}
	}
	const body = "Subject: x\r\n\r\n.dot\r\n..\r\n"
	check(t, c.SendMail("a@world.example", []string{jansen, "b@piet.example"}, strings.NewReader(body)))
	check(t, c.Quit())
	if m := w.stored(); len(m) != 1 || len(m[0].Targets) != 2 || !strings.HasSuffix(m[0].Body, body) {
		t.Errorf("stored %v", m)
	}
}
