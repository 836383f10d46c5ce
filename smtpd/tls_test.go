package smtpd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/host"
)

// putCert writes a certificate of its own making to cert.pem and key.pem.
func putCert(t *testing.T, disk vfs.FS, name string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, &key.PublicKey, key)
	check(t, err)
	k, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	check(t, host.WriteFile(disk, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})))
	check(t, host.WriteFile(disk, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func withTLS(t *testing.T) *world {
	w := newWorld(t)
	putCert(t, w.disk, "mx.example")
	w.cfg.TLSCert, w.cfg.TLSKey = "cert.pem", "key.pem"
	return w.serve()
}

// secure goes through STARTTLS.
func (c *client) secure() *client {
	c.t.Helper()
	c.say("STARTTLS", "220")
	s := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	check(c.t, s.Handshake())
	return &client{t: c.t, Conn: s}
}

func TestStartTLS(t *testing.T) {
	w := withTLS(t)
	c := w.dial()
	defer c.Close()
	c.want("220")
	if r := c.say("EHLO client.example", "250"); !strings.Contains(r, "250-STARTTLS\r\n") {
		t.Errorf("not offered: %q", r)
	}
	c.say("MAIL FROM:<>", "250")
	s := c.secure()
	s.say("RCPT TO:<a@customer.example>", "503 5.5.1") // what was said before does not count
	s.say("MAIL FROM:<>", "503 5.5.1 say EHLO first")
	if r := s.say("EHLO client.example", "250"); strings.Contains(r, "STARTTLS") {
		t.Errorf("offered again: %q", r)
	}
	s.say("STARTTLS", "503")
	s.envelope(jansen)
	s.say("DATA", "354")
	s.send("x: y\r\n")
	s.say(".", "250 2.0.0 queued")
	s.say("QUIT", "221")
	if b := w.stored()[0].Body; !strings.Contains(b, "with ESMTPS (version=TLS1.3 cipher=TLS_") || !strings.HasSuffix(b, "x: y\r\n") {
		t.Error(b)
	}
	w.nothingLeft()
}

// Commands in the clear behind STARTTLS must not be obeyed after the handshake.
func TestNothingMayFollowSTARTTLS(t *testing.T) {
	w := withTLS(t)
	c := w.hello()
	defer c.Close()
	c.send("STARTTLS\r\nMAIL FROM:<evil@world.example>\r\n")
	c.want("554 5.5.1 nothing may follow STARTTLS")
	c.want("")
}

func TestBadHandshakeEndsTheSession(t *testing.T) {
	w := withTLS(t)
	c := w.hello()
	defer c.Close()
	c.say("STARTTLS", "220")
	c.send("this is no handshake\r\n")
	c.reply() // an alert, or nothing
	w.nothingLeft()
	if w.counter("tls_handshakes_total", "failed") != 1 {
		t.Error("not counted")
	}
}

func TestCertificateIsReadAgainWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		putCert(t, disk, "old.example")
		c, err := host.LoadCerts(host.MadeFS(disk), slog.New(slog.DiscardHandler), "cert.pem", "key.pem")
		check(t, err)
		name := func() string {
			got, err := c.Config().GetCertificate(nil)
			check(t, err)
			leaf, err := x509.ParseCertificate(got.Certificate[0])
			check(t, err)
			return leaf.Subject.CommonName
		}
		time.Sleep(time.Second)
		putCert(t, disk, "new.example")
		if got := name(); got != "old.example" {
			t.Errorf("looked at once, got %s", got)
		}
		time.Sleep(host.CertEvery)
		if got := name(); got != "new.example" {
			t.Errorf("got %s", got)
		}
		check(t, host.WriteFile(disk, "cert.pem", []byte("nonsense")))
		time.Sleep(host.CertEvery)
		if got := name(); got != "new.example" {
			t.Errorf("after a bad file: %s", got)
		}
		putCert(t, disk, "newest.example")
		time.Sleep(host.CertEvery)
		if got := name(); got != "newest.example" {
			t.Errorf("got %s", got)
		}
	})
}

func TestMissingCertificateIsSaidClearly(t *testing.T) {
	_, err := host.LoadCerts(host.MadeFS(vfs.NewMem()), nil, "cert.pem", "key.pem")
	if err == nil || !strings.Contains(err.Error(), "tls_cert") || !strings.Contains(err.Error(), "cert.pem") {
		t.Errorf("got %v", err)
	}
}
