package peers

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mentions checks that a message has all these parts.
func mentions(t *testing.T, message string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(message, p) {
			t.Errorf("the message lacks %q:\n%s", p, message)
		}
	}
}

// A directory that is not this node's own is never written to (C14).
func TestAForeignDataDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(s.data, 0o700))
	mentions(t, s.refuses(), "data directory "+s.data+" is there but empty", "mount it", "--init")
	write(t, filepath.Join(s.data, "letter.doc"), "dear all")
	mentions(t, s.refuses(), "has no identity.json but other files (letter.doc)", "--data")
	mentions(t, s.refuses("--init"), "has no identity.json but other files (letter.doc)")
	must(os.Remove(filepath.Join(s.data, "letter.doc")))
	if !s.launch("--init") {
		t.Fatalf("--init does not make an empty directory ours:\n%s", s.log)
	}
	s.stop()
	s.start()
	s.customer("jansen", "127.0.0.1:1")
	taken(t, s.send(text("kept", "info@jansen.example")))
	s.keeps("jansen", 1)
	s.stop()

	mentions(t, s.refuses("--set", "node.name=node7"), `belongs to node "node1", and this is node "node7"`)
	moved := filepath.Join(filepath.Dir(s.data), "log-elsewhere")
	must(os.Rename(filepath.Join(s.data, "log"), moved))
	mentions(t, s.refuses(), "lacks its folder log", "restore it from a backup")
	must(os.Rename(moved, filepath.Join(s.data, "log")))
	identity, err := os.ReadFile(filepath.Join(s.data, "identity.json"))
	must(err)
	must(os.WriteFile(filepath.Join(s.data, "identity.json"), identity[:len(identity)/2], 0o600))
	mentions(t, s.refuses(), "identity.json is damaged", "backup")
	must(os.WriteFile(filepath.Join(s.data, "identity.json"), identity, 0o600))

	s.start()
	if got := s.body(s.rows("jansen")[0].QueueID); !strings.Contains(got, "Subject: kept\r\n") {
		t.Errorf("after all that the mail is %q", got)
	}
	s.works()
}

func TestTwoServersDoNotShareADataDirectory(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	twin := &server{t: t, data: s.data, config: s.config}
	mentions(t, twin.refuses(), s.data, "is in use by another bsmtpd")
	s.works()
}

func TestAPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tcp, udp := l.Addr().String(), u.LocalAddr().String()
	s := newServer(t, nil)
	mentions(t, s.refuses("--set", "smtpd.listen="+tcp), tcp, "in use", "smtpd.listen")
	mentions(t, s.refuses("--set", "api.address="+tcp), tcp, "in use", "api.address")
	mentions(t, s.refuses("--set", "login.radius.listen="+udp), udp, "in use", "login.radius.listen")
	// All that is wrong is said at once, and nothing is left behind.
	mentions(t, s.refuses("--set", "smtpd.listen="+tcp, "--set", "login.radius.listen="+udp), "smtpd.listen", "login.radius.listen")
	mentions(t, s.refuses("--set", "smtpd.listen=192.0.2.1:25"), "192.0.2.1:25", "smtpd.listen")
	s.start()
	s.works()
}

func TestMistakesInTheConfigurationAreNamed(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	for _, c := range []struct {
		file string
		want []string
	}{
		{"smtpd:\n  lisen: 127.0.0.1:0\n", []string{s.config + ":2", "smtpd.lisen: unknown key", `did you mean "listen"`}},
		{"delivery:\n  sessions: many\n", []string{s.config + ":2", "delivery.sessions", "whole number"}},
		{"spool:\n  retry: 20\n", []string{s.config + ":2", "spool.retry", "not a duration", "20m"}},
		{"smtpd:\n  max_message: 50 pigs\n", []string{s.config + ":2", "smtpd.max_message", "not a size"}},
		{"smtpd:\n  max_recipients: 5\n", []string{"smtpd.max_recipients", "100 to "}},
		{"login:\n  radius:\n    clients:\n    - network: 192.0.2.0/99\n      secret: x\n", []string{"login.radius.clients", "192.0.2.0/99"}},
		{"smtpd:\n  tls_cert: /does/not/exist\n  tls_key: /does/not/exist\n", []string{"smtpd", "/does/not/exist"}},
		{"smtpd: [\n", []string{s.config}},
		{"one: 1\ntwo: 2\nnode:\n  log: {level: loud}\n", []string{s.config + ":1", "one: unknown key", s.config + ":2", "two: unknown key", "node.log.level", "debug, info, warn"}},
	} {
		write(t, s.config, c.file)
		mentions(t, s.refuses("--data", s.data), c.want...)
		if strings.Contains(c.file, "/does/not/exist") {
			continue // it is read at the start only
		}
		r := s.try("check-config", "--config", s.config)
		if r.code != 1 {
			t.Errorf("check-config of %q: exit code %d", c.file, r.code)
		}
		mentions(t, r.out+r.errs, c.want...)
	}
	if _, err := os.Stat(s.data); err == nil {
		t.Errorf("%s was made for a configuration that is wrong", s.data)
	}
	r := s.try("serve", "--config", filepath.Join(s.data, "nowhere.yaml"))
	if r.code != 1 || !strings.Contains(r.errs, "nowhere.yaml") {
		t.Errorf("a file that is not there: %+v", r)
	}
	if r := s.try("serve", "--set", "smtpd.listen"); r.code != 2 {
		t.Errorf("--set without a value: %+v", r)
	}
}

// A mistake that is made while the server runs changes nothing.
func TestAMistakeWhileRunningIsLogged(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.excused = "configuration has mistakes"
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.config, strings.Replace(string(good), `"listen"`, `"lisen"`, 1))
	until(t, "the mistake is in the log", func() bool { return strings.Contains(s.log.String(), "unknown key") })
	s.works()
	write(t, s.config, strings.Replace(string(good), `"smtpd": {`, `"smtpd": {"max_message": "1MB",`, 1))
	until(t, "the new limit counts", func() bool {
		return strings.Contains(call(t, s.smtp()).say("EHLO sender.example")+"\n", "SIZE 1000000\n")
	})
}
