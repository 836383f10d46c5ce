package api

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bsmtpd/api/client"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// With a certificate the TCP door speaks HTTPS and nothing else; a client that does
// not know who signed it sends no token.
func TestTheAPISpeaksTLS(t *testing.T) {
	w := newTown(t)
	made := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer made.Close()
	pair := made.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	cfg := testConfig()
	cfg.Address = "127.0.0.1:0"
	cfg.TLSCert, cfg.TLSKey = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	run(t, os.WriteFile(cfg.TLSCert, ca, 0o600))
	run(t, os.WriteFile(cfg.TLSKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	w.server.cfg.Store(&cfg)
	run(t, w.server.Listen())
	doors := w.server.listeners
	srv := &http.Server{Handler: doors[1].h}
	go srv.Serve(doors[1].l)
	defer srv.Close()
	defer doors[0].l.Close()
	secret, err := os.ReadFile(filepath.Join(w.server.deps.DataDir, TokenName))
	if err != nil {
		t.Fatal(err)
	}
	address, token := doors[1].l.Addr().String(), strings.TrimSpace(string(secret))
	for _, c := range []struct {
		url  string
		sec  client.Security
		want bool
	}{
		{"https://" + address, client.Security{CA: ca}, true},
		{"https://" + address, client.Security{}, false},
		{"http://" + address, client.Security{}, false},
	} {
		cl, err := client.SecureURL(host.System().Net, c.url, token, c.sec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Status(w.ctx()); (err == nil) != c.want {
			t.Errorf("%s: %v", c.url, err)
		}
		cl.Close()
	}
}

func TestATokenDoesNotGoInTheClearToAnotherMachine(t *testing.T) {
	n := host.System().Net
	for _, url := range []string{"http://192.0.2.1:8025", "192.0.2.1:8025", "http://mx.provider.example"} {
		_, err := client.URL(n, url, "secret")
		wantKind(t, err, mail.Invalid, "could read the token")
		if _, err := client.SecureURL(n, url, "secret", client.Security{PlainToken: true}); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:8025", "http://[::1]:8025", "localhost:8025", "https://192.0.2.1"} {
		if _, err := client.URL(n, url, "secret"); err != nil {
			t.Error(err)
		}
	}
}
