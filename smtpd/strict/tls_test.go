package strict

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func certificate(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	check(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// talker is a client that waits for replies.
type talker struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func (w *world) dial(t testing.TB) *talker {
	here, there := net.Pipe()
	w.serve(there)
	t.Cleanup(func() { here.Close() })
	c := &talker{t, here, bufio.NewReader(here)}
	c.want("220 ")
	return c
}

// want reads one reply; "": the connection must be closed.
func (c *talker) want(prefix string) string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		all.WriteString(line)
		if err == nil && len(line) > 3 && line[3] == '-' {
			continue
		}
		if got := all.String(); !strings.HasPrefix(got, prefix) || prefix == "" && got != "" {
			c.t.Fatalf("heard %q (%v), want %q", got, err, prefix)
		}
		return all.String()
	}
}

func (c *talker) say(line, prefix string) string {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, line)
	check(c.t, err)
	return c.want(prefix)
}

func TestStartTLSForgetsWhatWasSaid(t *testing.T) {
	w := newWorld(t)
	w.cfg.TLS = certificate(t)
	c := w.dial(t)
	if r := c.say(hello, "250"); !strings.Contains(r, "250-STARTTLS\r\n") {
		t.Errorf("not offered: %q", r)
	}
	c.say("MAIL FROM:<a@b.example>\r\n", "250")
	c.say("STARTTLS now\r\n", "501 5.5.4")
	c.say("STARTTLS\r\n", "220 2.0.0 go ahead")
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	check(t, secure.Handshake())
	c.Conn, c.in = secure, bufio.NewReader(secure)
	c.say("RCPT TO:<d@e.example>\r\n", "503 5.5.1 say EHLO first")
	if r := c.say(hello, "250"); strings.Contains(r, "STARTTLS") {
		t.Errorf("offered twice: %q", r)
	}
	c.say("RCPT TO:<d@e.example>\r\n", "502")
	c.say("STARTTLS\r\n", "503 5.5.1 TLS is in use already")
	c.say("MAIL FROM:<a@b.example>\r\n", "250")
	c.say("RCPT TO:<d@e.example>\r\n", "250")
	c.say("DATA\r\n", "354")
	c.say("secret\r\n.\r\n", "250")
	c.say("QUIT\r\n", "221")
	if len(w.bodies()) != 1 || len(w.shakes) != 1 || w.shakes[0] != nil {
		t.Errorf("kept %v, handshakes %v", w.mails, w.shakes)
	}
}

// What stands behind STARTTLS in the same packet was not said by the client
// whom TLS proves.
func TestNothingMayFollowStartTLS(t *testing.T) {
	w := newWorld(t)
	w.cfg.TLS = certificate(t)
	c := w.dial(t)
	c.say(hello, "250")
	c.say("STARTTLS\r\nRSET\r\n", "554 5.5.1 nothing may follow STARTTLS before the handshake")
	c.want("")
}

func TestNoTLSWithoutACertificate(t *testing.T) {
	newWorld(t).say(t, hello+"STARTTLS\r\nQUIT\r\n", after(helloReply, "502 5.5.1 STARTTLS is not offered here", "221")...)
}

func TestAFailedHandshakeEndsTheSession(t *testing.T) {
	w := newWorld(t)
	w.cfg.TLS = certificate(t)
	c := w.dial(t)
	c.say(hello, "250")
	c.say("STARTTLS\r\n", "220")
	go io.WriteString(c.Conn, "NOOP\r\nMAIL FROM:<>\r\n")
	rest, _ := io.ReadAll(c.in)
	if strings.Contains(string(rest), "250") || len(w.shakes) != 1 || w.shakes[0] == nil {
		t.Errorf("heard %q, handshakes %v", rest, w.shakes)
	}
}
