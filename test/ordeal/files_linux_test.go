package ordeal

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWithFewFileDescriptorsItTakesFewConnections begins with a low limit: the node
// takes no more connections than it can serve, and its own files are not among
// those that go short.
func TestWithFewFileDescriptorsItTakesFewConnections(t *testing.T) {
	t.Parallel()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), settings{"smtpd.spill_at": "64KiB", "node.raft.snapshot_bytes": "8MiB", "node.store.memtable_size": "4MiB"})
	s.wrap = []string{"sh", "-c", `ulimit -n 256; exec "$@"`, "sh"}
	s.start()
	if said := s.log.String(); !strings.Contains(said, "fewer open files than the settings need") {
		t.Errorf("no warning:\n%s", said)
	}
	led := newLedger()
	customers := newCustomers(t, s, led, 4)
	for _, c := range customers {
		c.on(t)
	}
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: sizes, pause: func(r *rand.Rand) int { return r.IntN(60) }}
	in.send(6)
	led.more(t, 100, "with few connections")
	var crowd []net.Conn
	for range 300 {
		if c, err := net.Dial("tcp", s.smtp); err == nil {
			crowd = append(crowd, c)
		}
	}
	if _, said := enter(s.smtp); !strings.HasPrefix(said, "421 4.7.0") && said != "" { // or closed without a word
		t.Errorf("one connection more was greeted with %q", said)
	}
	cpu := s.cpu()
	time.Sleep(time.Second)
	if used := s.cpu() - cpu; used > 800*time.Millisecond {
		t.Errorf("with all connections taken it spends %s of a second", used)
	}
	led.more(t, 20, "by those who are connected")
	for _, c := range crowd {
		c.Close()
	}
	led.more(t, 100, "when the others have gone")
	in.end()
	s.drain()
	s.stop()
	led.audit(t, s)
}

// TestWithoutAnyFileDescriptorItWaits takes all descriptors away while the server
// works, as a leak elsewhere in the system would, and gives them back.
func TestWithoutAnyFileDescriptorItWaits(t *testing.T) {
	t.Parallel()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), settings{"node.raft.snapshot_bytes": "8MiB", "node.store.memtable_size": "2MiB", "node.low_space.check_every": "100ms"})
	s.excused = []string{"too many open files", "space is short"}
	s.start()
	led, r := newLedger(), chance(6)
	customers := newCustomers(t, s, led, 4)
	for _, c := range customers {
		c.on(t)
	}
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: sizes, pause: func(r *rand.Rand) int { return r.IntN(60) }, most: 20}
	in.send(6)
	for range 4 {
		led.more(t, 100, "with descriptors")
		was := s.limitFiles(t, 5)
		cpu := s.cpu()
		wait := 500 + time.Duration(r.IntN(3000))
		time.Sleep(wait * time.Millisecond)
		t.Logf("without descriptors for %s: %s of the processor's time, %v", wait*time.Millisecond, s.cpu()-cpu, led.said())
		s.limitFiles(t, was)
	}
	led.more(t, 100, "with descriptors")
	if !s.alive() {
		t.Fatal("the server has ended")
	}
	in.end()
	s.drain()
	s.stop()
	led.audit(t, s)
}

// limitFiles changes the limit of the process that runs and gives the one before.
func (s *server) limitFiles(t testing.TB, n uint64) uint64 {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return was.Cur
}

// cpu is the processor time that the server has used.
func (s *server) cpu() time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	var user, sys int64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &sys)
	return time.Duration(user+sys) * time.Second / 100
}

// memory is the process's resident memory now and at its most, in bytes.
func (s *server) memory() (now, most int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(rest, &now)
		}
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Sscan(rest, &most)
		}
	}
	return now << 10, most << 10
}
