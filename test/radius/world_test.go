package radius

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/login"
	"bsmtpd/mail"
	"bsmtpd/metric"
)

const patience = 15 * time.Second

// office is the directory of a provider with the customer jansen, and the RADIUS
// server before it.
type office struct {
	t       *testing.T
	address string // host:port
	port    string

	mu     sync.Mutex // guards the rows and what is below
	store  *kv.Store
	told   []string // "start jansen", with " again" for a duplicate
	closed bool     // nothing is committed
}

func (o *office) Login(_ context.Context, e directory.Event) (directory.Seen, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return directory.Seen{}, mail.Fail(mail.Unavailable, "the office is closed")
	}
	tx := o.store.Begin()
	seen, err := e.Apply(tx, mail.At(time.Now()), 0)
	if err != nil {
		tx.Discard()
		return seen, err
	}
	kinds := [...]string{"", "start", "stop", "interim", "on", "off"}
	s := strings.TrimSpace(kinds[e.Kind] + " " + string(e.Login))
	if seen.Duplicate {
		s += " again"
	}
	o.told = append(o.told, s)
	return seen, tx.Commit()
}

func (o *office) close(closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = closed
}

func (o *office) presence() directory.Presence {
	o.t.Helper()
	p, err := directory.Reader{R: o.store}.Presence("jansen", mail.At(time.Now()), 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}

// open starts the office on a port of its own.
func open(t *testing.T) *office {
	t.Helper()
	store, err := kv.Open("db", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	o := &office{t: t, store: store}
	tx := store.Begin()
	put := directory.PutAccounts{Items: []directory.PutAccount{{Account: directory.Account{Login: "jansen"}}}, By: "test"}
	if puts, err := put.Apply(tx, 1); err != nil || puts[0].Err() != nil {
		t.Fatal(puts, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	cfg := login.Config{StripRealm: true,
		Radius: login.Radius{Listen: "127.0.0.1:0", Workers: 4, Queue: 100, Timeout: 5 * time.Second},
		Files:  login.Files{Rescan: time.Second}}
	s := login.New(cfg, host.System(), t.TempDir(), o, slog.New(slog.NewTextHandler(t.Output(), nil)), metric.New())
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	o.address = s.Addrs()[0].String()
	_, o.port, _ = net.SplitHostPort(o.address)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return o
}

// need skips where a program of Debian is not installed.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = filepath.Join("/usr/sbin", program)
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%s is not installed: apt-get install %s", program, pkg)
		}
	}
	return path
}

// record is one accounting packet of session s1 at nas1.
func record(status, more string) string {
	s := "Acct-Status-Type=" + status + ",NAS-Identifier=nas1"
	if !strings.HasPrefix(status, "Accounting") {
		s += ",User-Name=jansen@example.net,Acct-Session-Id=s1,Framed-IP-Address=192.0.2.10"
	}
	return s + more
}

// send has radclient send one packet, once, and reports whether it was answered.
func send(t *testing.T, address, secret, record string) bool {
	t.Helper()
	cmd := exec.Command(need(t, "radclient", "freeradius-utils"), "-x", "-r", "1", "-t", "2", address, "acct", secret)
	cmd.Stdin = strings.NewReader(record)
	out, err := cmd.CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("No reply")) {
		t.Fatalf("radclient: %v\n%s", err, out)
	}
	return bytes.Contains(out, []byte("Received Accounting-Response"))
}

// until waits for the events that were told to be these, in any order where the
// way over the disk may repeat what came directly.
func (o *office) until(want ...string) {
	o.t.Helper()
	o.wait(func(told []string) bool { return strings.Join(told, ",") == strings.Join(want, ",") },
		"want "+strings.Join(want, ", "))
}

func (o *office) wait(good func(told []string) bool, what string) {
	o.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		o.mu.Lock()
		told := append([]string(nil), o.told...)
		o.mu.Unlock()
		if good(told) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			o.t.Fatalf("told %q; %s", told, what)
		}
	}
}

// freeRADIUS is a running server for the access servers.
type freeRADIUS struct{ address string }

// install makes a FreeRADIUS of Debian's configuration with the files of
// contrib/freeradius, in the manner of its README, and starts it. policy is the
// line for the accounting section; edits are replacements in contrib's files.
func install(t *testing.T, policy string, files []string, edits map[string]string) *freeRADIUS {
	t.Helper()
	program := need(t, "freeradius", "freeradius")
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if out, err := exec.Command("cp", "-a", "/etc/freeradius/3.0", etc).CombinedOutput(); err != nil {
		t.Skipf("Debian's configuration cannot be copied (is the test root?): %s", out)
	}
	for _, unused := range []string{"mods-enabled/eap", "sites-enabled/default", "sites-enabled/inner-tunnel"} {
		os.Remove(filepath.Join(etc, unused))
	}
	for _, name := range files {
		from, err := os.ReadFile(filepath.Join("../../contrib/freeradius", name))
		if err != nil {
			t.Fatal(err)
		}
		text := string(from)
		for old, changed := range edits {
			text = strings.ReplaceAll(text, old, changed)
		}
		write(t, filepath.Join(etc, name), text)
		if kind, found := strings.CutSuffix(filepath.Dir(name), "-available"); found {
			link := filepath.Join(etc, kind+"-enabled", filepath.Base(name))
			if err := os.Symlink(filepath.Join("..", name), link); err != nil {
				t.Fatal(err)
			}
		}
	}
	port := freePort(t)
	write(t, filepath.Join(etc, "sites-enabled/nas"), fmt.Sprintf(`server nas {
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = %s
	}
	preacct {
		preprocess
		acct_unique
	}
	accounting {
		detail
		%s
		attr_filter.accounting_response
	}
}`, port, policy))
	conf, err := os.ReadFile(filepath.Join(etc, "radiusd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"logdir": dir, "raddbdir": etc, "localstatedir": dir, "run_dir": dir} {
		conf = regexp.MustCompile(`(?m)^`+key+` = .*`).ReplaceAll(conf, []byte(key+" = "+value))
	}
	conf = regexp.MustCompile(`(?m)^\t(user|group) = .*`).ReplaceAll(conf, nil)
	write(t, filepath.Join(etc, "radiusd.conf"), string(conf))
	if err := os.MkdirAll(filepath.Join(dir, "radacct/bsmtpd"), 0o750); err != nil {
		t.Fatal(err)
	}
	run(t, program, etc)
	return &freeRADIUS{"127.0.0.1:" + port}
}

// run starts FreeRADIUS, waits until it is ready, and stops it with the test.
func run(t *testing.T, program, etc string) {
	t.Helper()
	cmd := exec.Command(program, "-f", "-l", "stdout", "-d", etc)
	out := &output{ready: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-gone:
		case <-time.After(3 * time.Second):
			cmd.Process.Kill()
			<-gone
		}
		if t.Failed() {
			t.Logf("FreeRADIUS said:\n%s", out)
		}
	})
	select {
	case <-out.ready:
	case err := <-gone:
		gone <- err
		t.Fatalf("FreeRADIUS does not start: %v\n%s", err, out)
	case <-time.After(patience):
		t.Fatal("FreeRADIUS is not ready")
	}
}

// output keeps what a program says and tells when it is ready.
type output struct {
	mu    sync.Mutex
	b     bytes.Buffer
	ready chan struct{}
	told  bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	if !o.told && bytes.Contains(o.b.Bytes(), []byte("Ready to process requests")) {
		o.told = true
		close(o.ready)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}
