package damage

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/textproto"
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
)

// patience is how long a test waits for what must come.
const patience = time.Minute

var scratch string // of the whole run; removed at its end

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "bsmtpd-damage-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// built is the program, made once.
var built = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "bsmtpd")
	if out, err := exec.Command("go", "build", "-o", bin, "bsmtpd/cmd/bsmtpd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func program(t testing.TB) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// output is what a process says, while it says it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is everything so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// server is "bsmtpd serve" on a data directory.
type server struct {
	t    testing.TB
	data string
	cmd  *exec.Cmd
	log  *output
	gone chan error
	smtp string
}

var quietly = []string{"--set", "smtpd.listen=127.0.0.1:0", "--set", "login.radius.listen=127.0.0.1:0", "--set", "api.address=127.0.0.1:0",
	"--set", "node.low_space.soft_bytes=0", "--set", "node.low_space.hard_bytes=0", "--set", "delivery.smarthost=127.0.0.1:1",
	"--set", "quota.default=1GiB"}

// launch starts a server and reports whether it became ready; otherwise it has
// ended.
func launch(t testing.TB, data string) (*server, bool) {
	t.Helper()
	s := &server{t: t, data: data, log: &output{}, gone: make(chan error, 1)}
	s.cmd = exec.Command(program(t), append([]string{"serve", "--data", data}, quietly...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	dieWithUs(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.gone <- s.cmd.Wait() }()
	t.Cleanup(s.kill)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		said := s.log.String()
		if strings.Contains(said, "msg=ready") {
			for line := range strings.SplitSeq(said, "\n") {
				if addr, ok := strings.CutPrefix(line, "smtpd.listen "); ok {
					s.smtp = strings.TrimSpace(addr)
				}
			}
			return s, true
		}
		if len(s.gone) > 0 {
			return s, false
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server neither starts nor ends:\n%s", said)
		}
	}
}

// kill takes the server away without a word.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.gone <- <-s.gone
}

// stop lets it end by itself.
func (s *server) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.gone:
		s.gone <- err
		if err != nil {
			s.t.Fatalf("the server did not end well: %v\n%s", err, s.log)
		}
	case <-time.After(patience):
		s.t.Fatalf("the server does not stop:\n%s", s.log)
	}
}

func (s *server) cli(args ...string) {
	s.t.Helper()
	if out, err := exec.Command(program(s.t), append([]string{"--data", s.data}, args...)...).CombinedOutput(); err != nil {
		s.t.Fatalf("bsmtpd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// send hands over messages on one connection, and returns when the last is
// acknowledged.
func (s *server) send(letters ...letter) {
	s.t.Helper()
	c, err := textproto.Dial("tcp", s.smtp)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	reply := func(code int) {
		s.t.Helper()
		if _, _, err := c.ReadResponse(code); err != nil {
			s.t.Fatalf("%v\n%s", err, s.log)
		}
	}
	say := func(code int, format string, args ...any) {
		s.t.Helper()
		if err := c.PrintfLine(format, args...); err != nil {
			s.t.Fatal(err)
		}
		reply(code)
	}
	reply(220)
	say(250, "EHLO sender.example")
	for _, l := range letters {
		say(250, "MAIL FROM:<anna@pietersen.example>")
		say(250, "RCPT TO:<info@%s.example>", l.to)
		say(354, "DATA")
		w := c.DotWriter()
		fmt.Fprint(w, l.text())
		if err := w.Close(); err != nil {
			s.t.Fatal(err)
		}
		reply(250)
	}
}

// letter is a message that can be told from all others.
type letter struct {
	to   string
	n    int
	size int
}

func (l letter) subject() string { return fmt.Sprintf("letter %d to %s", l.n, l.to) }

func (l letter) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Subject: %s\r\n\r\n", l.subject())
	for i := 0; b.Len() < l.size; i++ {
		fmt.Fprintf(&b, "line %d of %s, and nothing else in it\r\n", i, l.subject())
	}
	return b.String()
}

// lacks gives the letters that the server does not have, and those whose text is
// not what was sent. A row that cannot be read at all counts as lacking.
func (s *server) lacks(letters []letter) (missing, changed []string) {
	s.t.Helper()
	api := client.Socket(host.System().Net, filepath.Join(s.data, "admin.sock"))
	have := map[string]string{}
	for _, login := range logins {
		for r, err := range api.Messages(s.t.Context(), wire.Filter{Queue: "account/" + login}, client.Page{}) {
			if err != nil {
				break // what is not had is missed below
			}
			var b strings.Builder
			if err := api.Body(s.t.Context(), &b, r.QueueID, false); err == nil {
				_, rest, _ := strings.Cut(b.String(), "Subject: ")
				subject, _, _ := strings.Cut(rest, "\r\n")
				have[subject] = "Subject: " + rest
			}
		}
	}
	for _, l := range letters {
		switch text, ok := have[l.subject()]; {
		case !ok:
			missing = append(missing, l.subject())
		case text != l.text():
			changed = append(changed, l.subject())
		}
	}
	return missing, changed
}

// warns is what the server's status warns of.
func (s *server) warns() []string {
	s.t.Helper()
	st, err := client.Socket(host.System().Net, filepath.Join(s.data, "admin.sock")).Status(s.t.Context())
	if err != nil {
		s.t.Logf("status: %v", err)
	}
	return st.Warnings
}

// report is what "spool verify" says.
type report struct {
	code   int
	text   string // on standard error
	Checks []struct {
		Check  string
		Sound  bool
		Found  string
		Do     string
		Faults []string
	}
}

// verify runs "bsmtpd spool verify".
func verify(t testing.TB, data string) report {
	t.Helper()
	cmd := exec.Command(program(t), "spool", "verify", "--data", data, "-o", "json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var r report
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r.code, r.text = cmd.ProcessState.ExitCode(), errs.String()
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, &out)
		}
	}
	return r
}

func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exit code %d: %s", r.code, r.text)
	for _, c := range r.Checks {
		if !c.Sound {
			fmt.Fprintf(&b, "%s: %s %q; do: %s\n", c.Check, c.Found, c.Faults, c.Do)
		}
	}
	return b.String()
}
