package smtpd

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// backend is a go-smtp server that throws mail away, but for what kept holds.
type backend struct{ kept *[]string }

func (b backend) NewSession(*smtp.Conn) (smtp.Session, error) { return b, nil }
func (backend) Reset()                                        {}
func (backend) Logout() error                                 { return nil }
func (backend) Mail(string, *smtp.MailOptions) error          { return nil }
func (backend) Rcpt(string, *smtp.RcptOptions) error          { return nil }
func (b backend) Data(r io.Reader) error {
	if b.kept == nil {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	body, err := io.ReadAll(r)
	if err == nil {
		*b.kept = append(*b.kept, string(body))
	}
	return err
}

func goSMTP(t testing.TB, b backend) string {
	s := smtp.NewServer(b)
	s.Domain, s.ReadTimeout = "mx.example", 500*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// Why the protocol is spoken here and not by go-smtp's server. Where one of
// these fails, a newer version has mended it, and the choice can be made again.
func TestWhyNotGoSMTP(t *testing.T) {
	const env = "EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<d@e.example>\r\n"
	for _, tt := range []struct{ name, said, heard, kept string }{
		{"octets are lost and the message is accepted", env + "DATA\r\nx\r\n.\ry\r\n.\r\nQUIT\r\n", "250 2.0.0 OK: queued", "x\r\ny\r\n"},
		{"the end of data is not found", env + "DATA\r\nx\r\r\n.\r\nQUIT\r\n", "i/o timeout", ""},
		{"commands end in LF", strings.ReplaceAll(env, "\r", ""), "make sure <d@e.example> gets this", ""},
		{"no postmaster", env + "RCPT TO:<postmaster>\r\nQUIT\r\n", "501 5.5.2", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var kept []string
			c, err := net.Dial("tcp", goSMTP(t, backend{&kept}))
			check(t, err)
			defer c.Close()
			_, err = io.WriteString(c, tt.said)
			check(t, err)
			heard, _ := io.ReadAll(c)
			if !strings.Contains(string(heard), tt.heard) || strings.Join(kept, "") != tt.kept {
				t.Errorf("go-smtp has changed: heard %q, kept %q", heard, kept)
			}
		})
	}
}

// go-smtp's client, which is not this package's author, understands the server.
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
