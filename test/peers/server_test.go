package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
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

// server is "bsmtpd serve" with a configuration file and a data directory of its
// own, all ports chosen by the system.
type server struct {
	t       *testing.T
	data    string
	config  string
	api     *client.Client
	listens map[string]string // by key of the configuration
	log     *output           // of the process that runs now
	cmd     *exec.Cmd
	excused string     // an error that belongs to the test
	gone    chan error // holds the end of cmd once it has come
}

// newServer writes the configuration; the server is not started.
func newServer(t *testing.T, more settings) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, data: filepath.Join(dir, "data"), config: filepath.Join(dir, "bsmtpd.yaml")}
	all := settings{
		"node.data_dir": s.data, "node.hostname": "mx.provider.example", "node.provider_domains": []string{"provider.example"},
		"node.low_space.soft_bytes": 0, "node.low_space.hard_bytes": 0,
		"delivery.smarthost": "127.0.0.1:1", // nobody is in the world: no test asks a real DNS server
		"smtpd.listen":       []string{"127.0.0.1:0"}, "login.radius.listen": "127.0.0.1:0", "api.address": "127.0.0.1:0",
	}
	for k, v := range more {
		all[k] = v
	}
	s.configure(all)
	s.api = client.Socket(host.System().Net, filepath.Join(s.data, "admin.sock"))
	t.Cleanup(s.end)
	return s
}

// serve starts a server.
func serve(t *testing.T, more settings) *server {
	t.Helper()
	s := newServer(t, more)
	s.start()
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
	if err != nil {
		s.t.Fatal(err)
	}
	write(s.t, s.config, string(b)+"\n")
}

// launch starts the process and waits until it is ready or has ended, and
// reports which.
func (s *server) launch(args ...string) (ready bool) {
	s.t.Helper()
	s.cmd = exec.Command(program(s.t), append([]string{"serve", "--config", s.config}, args...)...)
	s.log = &output{}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	dieWithUs(s.cmd)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.gone = make(chan error, 1)
	go func(cmd *exec.Cmd, gone chan error) { gone <- cmd.Wait() }(s.cmd, s.gone)
	until(s.t, "the server is ready", func() bool {
		ready = strings.Contains(s.log.String(), "msg=ready")
		return ready || len(s.gone) > 0
	})
	return ready
}

func (s *server) start() {
	s.t.Helper()
	if !s.launch() {
		s.t.Fatalf("the server does not start:\n%s", s.log)
	}
	s.listens = map[string]string{}
	for line := range strings.SplitSeq(s.log.String(), "\n") {
		if key, addr, ok := strings.Cut(line, " "); ok && !strings.Contains(key, "=") {
			s.listens[key] = strings.TrimSpace(addr)
		}
	}
}

func (s *server) smtp() string   { return s.listens["smtpd.listen"] }
func (s *server) radius() string { return s.listens["login.radius.listen"] }

// refuses starts a server that must not start, and gives what it says.
func (s *server) refuses(args ...string) string {
	s.t.Helper()
	if s.launch(args...) {
		s.t.Fatal("the server started")
	}
	err := <-s.gone
	s.gone <- err
	if code := s.cmd.ProcessState.ExitCode(); code != 1 {
		s.t.Errorf("exit code %d, want 1", code)
	}
	return s.log.String()
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
		s.t.Fatalf("the server does not stop:\n%s", tail(s.log.String(), 30))
	}
}

// kill takes the server away without a word, as the power does.
func (s *server) kill() {
	s.t.Helper()
	s.cmd.Process.Kill()
	s.gone <- <-s.gone
}

// end is the end of a test, whatever has become of it.
func (s *server) end() {
	if s.cmd == nil {
		return
	}
	if len(s.gone) == 0 {
		if s.t.Failed() {
			s.kill()
		} else {
			s.stop()
		}
	}
	log := s.log.String()
	for line := range strings.Lines(log) {
		for _, word := range []string{"goroutine ", "a bug ended", "please report", "level=ERROR"} {
			if strings.Contains(line, word) && (s.excused == "" || !strings.Contains(line, s.excused)) {
				s.t.Errorf("the server logged: %s", line)
			}
		}
	}
	if s.t.Failed() || *verbose {
		s.t.Logf("bsmtpd said:\n%s", tail(log, 60))
	}
}

// alive reports whether the process is there.
func (s *server) alive() bool { return len(s.gone) == 0 }

// try runs one of the program's commands as an operator does.
func (s *server) try(args ...string) result { return s.piped("", args...) }

// piped is try with something on standard input.
func (s *server) piped(in string, args ...string) result {
	s.t.Helper()
	return execute(s.t, in, append([]string{program(s.t), "--data", s.data}, args...)...)
}

// cli runs a command that must succeed, and gives what it prints.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	r := s.try(args...)
	if r.code != 0 {
		s.t.Fatalf("bsmtpd %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.errs)
	}
	return r.out
}

// customer adds an account with the domain LOGIN.example, pushed to route. More
// are further flags of "account add".
func (s *server) customer(login, route string, more ...string) {
	s.t.Helper()
	s.cli(append([]string{"account", "add", login, "--route", route}, more...)...)
	s.cli("domain", "add", login+".example", "--account", login)
}

// queue is the state of an account's queue; the zero value: it never had mail.
func (s *server) queue(login string) wire.QueueSummary {
	s.t.Helper()
	q, err := s.api.Queue(context.Background(), "account/"+login)
	if err != nil && mail.KindOf(err) != mail.NotFound {
		s.t.Fatal(err)
	}
	return q
}

// waits until the customer's server was tried in vain and n messages are kept.
func (s *server) keeps(login string, n int64) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("%d messages for %s wait after a failed attempt", n, login), func() bool {
		q := s.queue(login)
		return q.Messages == n && q.Failing && q.Active == ""
	})
}

// drained waits until nothing is left of an account's queue.
func (s *server) drained(login string) {
	s.t.Helper()
	until(s.t, "the queue of "+login+" is empty", func() bool { q := s.queue(login); return q.Messages == 0 && q.Active == "" })
}

// rows are the messages of an account's queue.
func (s *server) rows(login string) []wire.QueueRow {
	s.t.Helper()
	var out []wire.QueueRow
	for r, err := range s.api.Messages(context.Background(), wire.Filter{Queue: "account/" + login}, client.Page{}) {
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// body is a queued message with its header.
func (s *server) body(id string) string {
	s.t.Helper()
	var b strings.Builder
	if err := s.api.Body(context.Background(), &b, id, false); err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// works checks that the server still takes mail and pushes it, whatever happened
// before.
func (s *server) works() {
	s.t.Helper()
	if !s.alive() {
		s.t.Fatalf("the server has ended:\n%s", tail(s.log.String(), 60))
	}
	s.t.Run("and it still works", func(t *testing.T) {
		was := s.t
		s.t = t
		defer func() { s.t = was }()
		k := newSink(t)
		s.customer("witness", k.addr)
		taken(t, call(t, s.smtp()).hello().data(text("still here", "info@witness.example")))
		if got := k.next(); !strings.Contains(string(got.body), "Subject: still here\r\n") {
			t.Errorf("got %q", got.body)
		}
	})
}

// send hands over one letter on a connection of its own and gives the reply.
func (s *server) send(l letter) string {
	s.t.Helper()
	c := call(s.t, s.smtp()).hello()
	defer c.conn.Close()
	return c.data(l)
}

// radclient sends one accounting request and reports whether it was answered.
func (s *server) radclient(secret, request string) bool {
	s.t.Helper()
	r := execute(s.t, request, need(s.t, "radclient", "freeradius-utils"), "-x", "-r", "1", "-t", "2", s.radius(), "acct", secret)
	return strings.Contains(r.out, "Received Accounting-Response")
}

// online tells a login by RADIUS as an access server does.
func (s *server) online(login, session string) {
	s.t.Helper()
	if !s.radclient("testing123", "Acct-Status-Type=Start,NAS-Identifier=nas1,Framed-IP-Address=127.0.0.1,User-Name="+login+",Acct-Session-Id="+session) {
		s.t.Fatal("RADIUS was not answered")
	}
}
