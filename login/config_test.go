package login

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestImpossibleSettingsAreRefusedWithTheirKey(t *testing.T) {
	for want, change := range map[string]func(c *Config){
		`radius.listen: "nonsense"`:                         func(c *Config) { c.Radius.Listen = "nonsense" },
		"radius.clients: name the access servers":           func(c *Config) { c.Radius.Listen, c.Radius.Clients = "0.0.0.0:1813", nil },
		`radius.clients[0].network: "here"`:                 func(c *Config) { c.Radius.Clients[0].Network = "here" },
		"radius.clients[0].secret: the secret of":           func(c *Config) { c.Radius.Clients[0].Secret = "" },
		"radius.clients[1].secret: everybody knows":         func(c *Config) { c.Radius.Clients[1].Secret = DefaultSecret },
		"radius.clients[0].secret: everybody":               func(c *Config) { c.Radius.Clients[0].Network = "126.0.0.0/7" },
		"radius.clients[1].network: 127.0.0.1/32 stands in": func(c *Config) { c.Radius.Clients[1].Network = "127.0.0.1/32" },
		"radius.workers: 0":                                 func(c *Config) { c.Radius.Workers = 0 },
		"radius.queue: 0":                                   func(c *Config) { c.Radius.Queue = 0 },
		"radius.timeout: 0s":                                func(c *Config) { c.Radius.Timeout = 0 },
		"files.rescan: 1ms":                                 func(c *Config) { c.Files.Rescan = time.Millisecond },
	} {
		c := testConfig()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c := testConfig()
	c.Radius.Listen, c.Radius.Clients, c.Files.Dir = "[::1]:0", nil, ""
	if err := c.Check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	c := Client{Network: "192.0.2.1", Secret: "verborgen"}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%+v", testConfig()), fmt.Sprintf("%#v", testConfig())} {
		if strings.Contains(s, "verborgen") {
			t.Error(s)
		}
	}
}

func TestAPortInUseIsTold(t *testing.T) {
	cfg := testConfig()
	w := newWorld(t, cfg)
	cfg.Radius.Listen = "127.0.0.1:9"
	w.server.cfg = cfg
	if err := w.server.Listen(); err == nil || !strings.Contains(err.Error(), "login.radius.listen: cannot listen on 127.0.0.1:9/udp") {
		t.Error(err)
	}
}
