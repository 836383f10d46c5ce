package ordeal

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. Nothing here is a
// measurement: a slow machine may take its time.
const patience = 3 * time.Minute

var (
	seedFlag = flag.Uint64("seed", 0, "of all that is left to chance; 0: another in each run")
	kills    = flag.Int("kills", 30, "how often TestKilled… kills the server")
	binary   = flag.String("bin", "", "the program; empty: it is built")
	verbose  = flag.Bool("servers", false, "show the servers' logs even where a test passes")
)

var (
	scratch string // of the whole run; removed at its end
	seed    uint64
)

func TestMain(m *testing.M) {
	flag.Parse()
	seed = *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000) + 1
	}
	dir, err := os.MkdirTemp("", "bsmtpd-ordeal-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// chance is a stream of chance of its own for each part of a test.
func chance(part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }

// built is the program, made once.
var built = sync.OnceValues(func() (string, error) {
	if *binary != "" {
		return *binary, nil
	}
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

// taken are ports that freePort has given away.
var taken sync.Map

// freePort is a TCP port of loopback on which nobody listens now. It is below
// those that the system gives to clients, so that no connection takes it while the
// server that has it is down.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		l.Close()
		if _, had := taken.LoadOrStore(port, true); !had {
			return port
		}
	}
	t.Fatal("no port of loopback is free")
	return ""
}

// until asks again until it is so. what names it if it never is.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
