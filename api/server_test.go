package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/goleak"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func digest(secret string) string {
	d := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(d[:])
}

// tokens gives the town's server a token file.
func (w *town) tokens(lines ...string) error {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cfg := testConfig()
	cfg.TokenFile = path
	return w.server.SetConfig(cfg)
}

func TestOverTCPATokenIsNeededAndItsScopeHolds(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	id := w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, 0)
	if err := w.tokens("# for the dashboard", "dash read "+digest("r"), "", "radius login "+digest("l"), "portal admin "+digest("a")); err != nil {
		t.Fatal(err)
	}
	const account = `{"login":"pietersen"}`
	for _, c := range []struct {
		token, method, path, body string
		code                      int
	}{
		{"", "GET", "/status", "", 401},
		{"x", "GET", "/status", "", 401},
		{"r", "GET", "/status", "", 200},
		{"l", "GET", "/status", "", 403},
		{"a", "GET", "/status", "", 200},
		{"r", "GET", "/accounts/jansen", "", 200},
		{"r", "GET", "/messages/" + id, "", 200},
		{"r", "GET", "/messages/" + id + "/body", "", 403},
		{"a", "GET", "/messages/" + id + "/body", "", 200},
		{"r", "POST", "/accounts", account, 403},
		{"l", "POST", "/accounts", account, 403},
		{"a", "POST", "/accounts", account, 201},
		{"r", "POST", "/logins", `{"login":"jansen"}`, 403},
		{"l", "POST", "/logins", `{"login":"jansen"}`, 200},
		{"r", "DELETE", "/accounts/jansen", "", 403},
		{"a", "GET", "/nowhere", "", 404},
		{"", "GET", "/nowhere", "", 401},
	} {
		var header []string
		if c.token != "" {
			header = []string{"Authorization", "Bearer " + c.token}
		}
		code, text := w.raw(w.tcp.URL, c.method, wire.Prefix+c.path, c.body, header...)
		if code != c.code || code >= 400 && !strings.Contains(text, `"kind":`) {
			t.Errorf("token %q %s %s: %d %s, want %d", c.token, c.method, c.path, code, text, c.code)
		}
	}
	// The audit names the token, and never its secret.
	for r, err := range w.admin.Audit(w.ctx(), client.AuditFilter{Object: "account/pietersen"}, client.Page{}) {
		if err != nil || r.By != "token:portal" {
			t.Fatal(r, err)
		}
	}
}

func TestATokenFileMustBeUnderstood(t *testing.T) {
	w := newTown(t)
	for word, line := range map[string]string{
		"found 2 words":       "portal " + digest("x"),
		`scope "root"`:        "portal root " + digest("x"),
		"not a SHA-256":       "portal admin secret",
		"64 hexadecimal digi": "portal admin " + strings.Repeat("z", 64),
	} {
		err := w.tokens("# first", line)
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", line, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats what may be a token: %v", err)
		}
	}
}

func TestPagesThatNeedNoToken(t *testing.T) {
	w := newTown(t)
	for path, word := range map[string]string{
		"/healthz":             "ok",
		"/readyz":              "ok",
		"/metrics":             "bsmtpd_api_",
		"/api/v1/openapi.json": `"/api/v1/messages/actions"`,
		"/api/v1/openapi.yaml": "openapi: 3",
	} {
		code, text := w.raw(w.tcp.URL, "GET", path, "")
		if code != 200 || !strings.Contains(text, word) {
			t.Errorf("%s: %d %.300s", path, code, text)
		}
	}
	w.notReady = []string{"no leader"}
	if code, text := w.raw(w.tcp.URL, "GET", "/readyz", ""); code != 503 || !strings.Contains(text, "no leader") {
		t.Error(code, text)
	}
	if code, _ := w.raw(w.tcp.URL, "GET", "/healthz", ""); code != 200 {
		t.Error("a node that is not ready is alive all the same")
	}
}

func TestProfilesAreOnlyOnTheAdminSocket(t *testing.T) {
	w := newTown(t)
	if code, _ := w.rawAdmin("GET", "/debug/pprof/cmdline", ""); code != 200 {
		t.Error(code)
	}
	if err := w.tokens("a admin " + digest("a")); err != nil {
		t.Fatal(err)
	}
	if code, _ := w.raw(w.tcp.URL, "GET", "/debug/pprof/cmdline", "", "Authorization", "Bearer a"); code != 404 {
		t.Error(code)
	}
}

func TestAPanicEndsOneCall(t *testing.T) {
	w := newTown(t)
	mux := http.NewServeMux()
	a := humago.New(mux, huma.Config{OpenAPI: &huma.OpenAPI{}, Formats: huma.DefaultFormats})
	register(a, call("GET", "/bug", "x", "bug", "", ScopeRead), func(context.Context, *struct{}) (*struct{}, error) { panic("bug") })
	code, text := do(w.server.guard("tcp", mux), "GET", wire.Prefix+"/bug", "")
	if code != 500 || !strings.Contains(text, "met a bug") {
		t.Fatal(code, text)
	}
	if code, text := w.rawAdmin("GET", "/metrics", ""); code != 200 || !strings.Contains(text, "bsmtpd_api_panics_total 1") {
		t.Fatal(text)
	}
}

// running is a server on real sockets in a directory of its own.
func running(t *testing.T, dir string, change func(*Config)) (*Server, func()) {
	t.Helper()
	w := newTown(t)
	cfg := testConfig()
	cfg.Address = "127.0.0.1:0"
	if change != nil {
		change(&cfg)
	}
	deps := w.server.deps
	deps.DataDir, deps.Host.Net = dir, host.System().Net
	deps.Metrics = metric.New()
	s := New(cfg, deps)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var stopped bool
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

func TestTheTwoDoors(t *testing.T) {
	dir := t.TempDir()
	s, stop := running(t, dir, nil)
	socket := filepath.Join(dir, SocketName)
	for _, name := range []string{SocketName, TokenName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(name, info.Mode(), err)
		}
	}
	admin := client.Socket(host.System().Net, socket)
	if _, err := admin.AddAccount(t.Context(), wire.Account{Login: "jansen"}); err != nil {
		t.Fatal(err)
	}
	for r, err := range admin.Audit(t.Context(), client.AuditFilter{}, client.Page{}) {
		want := fmt.Sprintf("uid%d@admin.sock", os.Getuid())
		if os.Getuid() == 0 {
			want = "root@admin.sock"
		}
		if err != nil || r.By != want {
			t.Fatal(r, err)
		}
	}

	secret, err := os.ReadFile(filepath.Join(dir, TokenName))
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := client.URL(host.System().Net, s.Addrs()[1].String(), strings.TrimSpace(string(secret)))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := tcp.Status(t.Context()); err != nil || st.Node != "n1" || !st.Ready {
		t.Fatal(st, err)
	}

	// Another node may not take the socket while this one has it.
	second := &Server{deps: s.deps, log: s.log}
	second.cfg.Store(s.config())
	if err := second.Listen(); err == nil || !strings.Contains(err.Error(), "another node is running") {
		t.Fatal(err)
	}
	admin.Close()
	tcp.Close()
	stop()
	_, err = admin.Status(t.Context())
	wantKind(t, err, mail.Unavailable, "no node answers at")
	// A socket that a crash left behind is replaced, the token stays.
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	_, stop = running(t, dir, nil)
	if again, _ := os.ReadFile(filepath.Join(dir, TokenName)); string(again) != string(secret) {
		t.Fatal("the token has changed")
	}
	stop()
	admin.Close()
}

func TestAPortInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newTown(t)
	s := w.server
	cfg := testConfig()
	cfg.Address = l.Addr().String()
	s.cfg.Store(&cfg)
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "api.address") || !strings.Contains(err.Error(), cfg.Address) {
		t.Fatal(err)
	}
}

func TestALongDataDirectoryIsRefusedInWords(t *testing.T) {
	w := newTown(t)
	w.server.deps.DataDir = filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	if err := os.MkdirAll(w.server.deps.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Listen(); err == nil || !strings.Contains(err.Error(), "shorter data directory") {
		t.Fatal(err)
	}
}

func TestConnectionsBeyondTheLimitGet503(t *testing.T) {
	s, _ := running(t, t.TempDir(), func(c *Config) { c.MaxConnections = 1 })
	addr := s.Addrs()[1].String()
	first, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(first, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	buf := make([]byte, 12)
	if _, err := first.Read(buf); err != nil || string(buf) != "HTTP/1.1 200" {
		t.Fatal(string(buf), err)
	}
	// No http.Get: the answer may come before the request, which Go's client can
	// call an error.
	second, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got, err := io.ReadAll(second); !strings.HasPrefix(string(got), "HTTP/1.1 503") {
		t.Fatal(string(got), err)
	}
	first.Close()
	deadline := time.Now().Add(5 * time.Second)
	for {
		resp, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("a place that became free is not given again")
		}
		time.Sleep(5 * time.Millisecond)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestImpossibleSettingsAreNamed(t *testing.T) {
	good := testConfig()
	good.Address = "127.0.0.1:8025"
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*Config){
		"address":         func(c *Config) { c.Address = "8025" },
		"max_connections": func(c *Config) { c.MaxConnections = 0 },
		"max_import":      func(c *Config) { c.MaxImport = 0 },
		"mx_hosts":        func(c *Config) { c.MXHosts = []string{"a b"} },
		"read_timeout":    func(c *Config) { c.ReadTimeout = 0 },
		"probe_timeout":   func(c *Config) { c.ProbeTimeout = 48 * time.Hour },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestANodeThatCannotCommitIsUnavailable(t *testing.T) {
	w := newTown(t)
	w.fail = &mail.Error{Kind: mail.Unavailable, Err: errors.New("no leader")}
	_, err := w.admin.AddAccount(w.ctx(), wire.Account{Login: "jansen"})
	wantKind(t, err, mail.Unavailable, "no leader")
	if code, _ := w.rawAdmin("POST", wire.Prefix+"/accounts", `{"login":"x"}`); code != 503 {
		t.Fatal(code)
	}
}
