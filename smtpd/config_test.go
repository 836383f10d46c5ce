package smtpd

import (
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreGood(t *testing.T) {
	check(t, defaults(t).Check())
}

func TestBadSettingsAreNamed(t *testing.T) {
	for _, tt := range []struct{ key, value, want string }{
		{"listen", "", "listen: no address"},
		{"listen", "2525", "listen: \"2525\" is not host:port"},
		{"postmaster", "postmaster", "postmaster: address"},
		{"tls_cert", "a.pem", "tls_cert: tls_cert and tls_key"},
		{"max_message", "1KiB", "max_message: 1024 is not allowed; use 65536 to"},
		{"max_recipients", "99", "max_recipients: 99 is not allowed; use 100 to 1000"},
		{"max_recipients", "1001", "max_recipients:"},
		{"max_line", "997", "max_line:"},
		{"max_connections", "0", "max_connections: 0 is not allowed; use 1 to"},
		{"max_errors", "0", "max_errors:"},
		{"spill_at", "1", "spill_at:"},
		{"min_rate", "0", "min_rate:"},
		{"idle_timeout", "0s", "idle_timeout: 0s is not allowed; use 1s or more"},
		{"greet_wait", "2m", "greet_wait:"},
		{"greet_skip", "here", "greet_skip: \"here\" is neither"},
		{"proxies", "10.0.0.0/99", "proxies:"},
	} {
		c := defaults(t)
		c.with(t, tt.key, tt.value)
		if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s=%s: got %v", tt.key, tt.value, err)
		}
	}
}

func TestNewSettingsHoldForNewSessions(t *testing.T) {
	w := newWorld(t).serve()
	old := w.hello()
	defer old.Close()
	cfg := w.cfg
	cfg.MaxMessage, cfg.Listen = 100_000, []string{"nonsense"}
	check(t, w.srv.SetConfig(cfg))
	c := w.dial()
	defer c.Close()
	c.want("220")
	if r := c.say("EHLO a", "250"); !strings.Contains(r, "SIZE 100000\r\n") {
		t.Errorf("got %q", r)
	}
	if r := old.say("EHLO a", "250"); !strings.Contains(r, "SIZE 50000000\r\n") {
		t.Errorf("got %q", r)
	}
	cfg.IdleTimeout = -time.Second
	if w.srv.SetConfig(cfg) == nil {
		t.Error("bad settings were taken")
	}
}
