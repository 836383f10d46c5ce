package peers

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. Nothing here is a
// measurement: a slow machine may take its time.
const patience = time.Minute

// verbose shows what the servers say even where a test passes.
var verbose = flag.Bool("servers", false, "show the logs of all servers")

var scratch string // of the whole run; removed at its end

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "bsmtpd-peers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// built is the program, made once, and by its other names.
var built = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "bin", "bsmtpd")
	if out, err := exec.Command("go", "build", "-o", bin, "bsmtpd/cmd/bsmtpd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	for _, name := range []string{"mailq", "sendmail"} {
		if err := os.Symlink("bsmtpd", filepath.Join(filepath.Dir(bin), name)); err != nil {
			return "", err
		}
	}
	return bin, nil
})

func program(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// need gives the path of a program of Debian, or skips the test.
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

func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("only root can start %s", what)
	}
}

// openDir is a directory that other users may enter: mail servers do not deliver
// as root.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "peer-")
	if err != nil {
		t.Fatal(err)
	}
	for d := dir; d != filepath.Dir(scratch); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// freePort is a TCP port of loopback on which nobody listens now. It is below
// those that the system gives to clients (ip_local_port_range), so that no
// connection takes it while the server that has it is down.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port of loopback is free")
	return ""
}

// atEnd runs a program when the test ends, even if it ends by a panic or a kill:
// daemons that have left their parent must not stay behind.
func atEnd(t *testing.T, argv ...string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `cat >/dev/null; exec "$@"`, "sh"}, argv...)...)
	line, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		line.Close()
		cmd.Wait()
	})
}

// until asks again until it is so. what names it if it never is.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// reachable waits until something listens.
func reachable(t *testing.T, addr string) {
	t.Helper()
	until(t, "somebody listens on "+addr, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
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
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// result is how a program ended.
type result struct {
	out, errs string
	code      int
}

// execute runs a program to its end.
func execute(t *testing.T, in string, argv ...string) result {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(in)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}
