package ordeal

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// settings are keys of the configuration, "smtpd.listen", and their values.
type settings map[string]any

// server is "bsmtpd serve", started as often as need be on one data directory. Its
// SMTP port stays the same, so that senders find it again.
type server struct {
	t      testing.TB
	data   string
	config string
	smtp   string   // address
	wrap   []string // a program in front, and its arguments
	env    []string // beside ours
	api    *client.Client

	cmd  *exec.Cmd
	log  *output    // of the process that runs now
	gone chan error // holds the end of cmd once it has come
	said strings.Builder

	excused []string // parts of errors that belong to the test

	mu    sync.Mutex
	kills []time.Time // guarded by mu
}

// newServer writes the configuration; the server is not started. data is made by
// the server.
func newServer(t testing.TB, data string, more settings) *server {
	t.Helper()
	s := &server{t: t, data: data, config: filepath.Join(t.TempDir(), "bsmtpd.yaml"), smtp: "127.0.0.1:" + freePort(t)}
	all := settings{
		"node.data_dir": data, "node.hostname": "mx.provider.example", "node.log.level": "info",
		"node.low_space.soft_bytes": 0, "node.low_space.hard_bytes": 0, "node.low_space.soft_inodes": 0, "node.low_space.hard_inodes": 0,
		"smtpd.listen": []string{s.smtp}, "smtpd.max_per_address": 1000, "login.radius.listen": "", "api.address": "",
		"delivery.smarthost": "127.0.0.1:1", "delivery.connect_timeout": "2s", "delivery.stop_timeout": "10s",
		"spool.retry": "1s", "spool.login_window": "0s", "quota.default": "1TiB",
	}
	for k, v := range more {
		all[k] = v
	}
	s.configure(all)
	s.socket(filepath.Join(data, "admin.sock"))
	t.Cleanup(s.end)
	return s
}

// configure writes the file: JSON, which is YAML too.
func (s *server) configure(all settings) {
	s.t.Helper()
	root := map[string]any{}
	for key, value := range all {
		section, words := root, strings.Split(key, ".")
		for _, w := range words[:len(words)-1] {
			below, ok := section[w].(map[string]any)
			if !ok {
				below = map[string]any{}
				section[w] = below
			}
			section = below
		}
		section[words[len(words)-1]] = value
	}
	b, err := json.MarshalIndent(root, "", "  ")
	if err == nil {
		err = os.WriteFile(s.config, b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// socket says where the admin socket is for this process.
func (s *server) socket(path string) { s.api = client.Socket(host.System().Net, path) }

// launch starts the process and does not wait.
func (s *server) launch() {
	s.t.Helper()
	argv := append(append([]string(nil), s.wrap...), program(s.t), "serve", "--config", s.config)
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.log = &output{}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	dieWithUs(s.cmd)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.gone = make(chan error, 1)
	go func(cmd *exec.Cmd, gone chan error) { gone <- cmd.Wait() }(s.cmd, s.gone)
}

// ready reports whether the server that was launched is ready: it greets.
func (s *server) ready() bool {
	c, _ := enter(s.smtp)
	if c != nil {
		c.Close()
	}
	return c != nil
}

func (s *server) alive() bool { return s.cmd != nil && len(s.gone) == 0 }

func (s *server) start() {
	s.t.Helper()
	s.launch()
	ready := false
	until(s.t, "the server is ready", func() bool { ready = s.ready(); return ready || !s.alive() })
	if !ready {
		s.t.Fatalf("the server does not start:\n%s", tail(s.log.String(), 40))
	}
}

// supervise starts the server again whenever it has ended, as a service manager
// does, until stop is called; it counts how often.
func (s *server) supervise() (stop func() (starts int)) {
	quit, done := make(chan struct{}), make(chan struct{})
	starts := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(200 * time.Millisecond):
			}
			s.mu.Lock()
			if !s.alive() {
				s.collect()
				s.launch()
				starts++
			}
			s.mu.Unlock()
		}
	}()
	return func() int { close(quit); <-done; return starts }
}

// kill takes the process away without a word.
func (s *server) kill() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills = append(s.kills, time.Now())
	s.cmd.Process.Kill()
	s.gone <- <-s.gone
	s.collect()
}

// killed reports whether the process was killed between the two times.
func (s *server) killed(from, to time.Time) (at time.Time, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kills {
		if !k.Before(from) && !k.After(to) {
			return k, true
		}
	}
	return at, false
}

// stop asks the server to end, which must be no error.
func (s *server) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.gone:
		s.gone <- err
		if err != nil {
			s.t.Fatalf("the server did not end well: %v\n%s", err, tail(s.log.String(), 30))
		}
	case <-time.After(patience):
		s.cmd.Process.Signal(syscall.SIGQUIT)
		time.Sleep(time.Second)
		s.t.Fatalf("the server does not stop:\n%s", tail(s.log.String(), 300))
	}
	s.collect()
}

// collect looks through the log of a process that has ended.
func (s *server) collect() {
	if s.log == nil {
		return
	}
	log := s.log.String()
	s.log = nil
	bad := 0
lines:
	for line := range strings.Lines(log) {
		for _, word := range []string{"goroutine ", "a bug ended", "please report", "level=ERROR", "panic"} {
			if !strings.Contains(line, word) {
				continue
			}
			for _, e := range s.excused {
				if strings.Contains(line, e) {
					continue lines
				}
			}
			if bad++; bad <= 20 {
				s.t.Errorf("the server logged: %.600s", line)
			}
			continue lines
		}
	}
	if *verbose || bad > 0 || s.t.Failed() {
		s.said.WriteString(tail(log, 60))
	}
}

// end is the end of a test, whatever has become of it.
func (s *server) end() {
	if s.cmd == nil {
		return
	}
	if s.alive() {
		if s.t.Failed() {
			s.kill()
		} else {
			s.stop()
		}
	}
	last := ""
	if s.log != nil {
		last = s.log.String()
	}
	s.collect()
	if s.said.Len() == 0 && s.t.Failed() {
		s.said.WriteString(tail(last, 60))
	}
	if s.t.Failed() || *verbose {
		s.t.Logf("bsmtpd said:\n%s", s.said.String())
	}
}

// customer adds an account with the domain LOGIN.example, pushed to route.
func (s *server) customer(login mail.Login, route string) {
	s.t.Helper()
	ctx := context.Background()
	if _, err := s.api.AddAccount(ctx, wire.Account{Login: login, Route: route}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.api.AddDomain(ctx, wire.Domain{Name: mail.Domain(string(login) + ".example"), Login: login}); err != nil {
		s.t.Fatal(err)
	}
}

// waiting counts messages in all queues; -1: the server did not say.
func (s *server) waiting() int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var n int64
	for q, err := range s.api.Queues(ctx, false, false, client.Page{}) {
		if err != nil {
			return -1
		}
		n += q.Messages
	}
	return n
}

// drain has every queue tried until nothing waits in any.
func (s *server) drain() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		n := s.waiting()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			for q, err := range s.api.Queues(context.Background(), false, false, client.Page{}) {
				s.t.Logf("%+v %v", q, err)
			}
			s.t.Fatalf("not within %s: the queues are empty; %d messages wait", patience, n)
		}
		s.api.RetryQueues(context.Background(), wire.QueueRetry{All: true}, nil)
		time.Sleep(300 * time.Millisecond)
	}
}

// output collects what a program says.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n") + "\n"
}
