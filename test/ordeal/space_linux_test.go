package ordeal

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a file system in memory that only the server and this test see: it
// is mounted in a mount namespace of its own and goes away with it.
type smallDisk struct {
	t     testing.TB
	dir   string   // as the server sees it
	here  string   // as this process sees it
	enter []string // a program in front that brings another to it
}

func newSmallDisk(t testing.TB, options string) *smallDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	for _, p := range []string{"unshare", "nsenter", "mount"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: apt-get install util-linux mount", p)
		}
	}
	dir, err := os.MkdirTemp(scratch, "disk")
	if err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("unshare", "-m", "sh", "-c", `mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec cat`, "sh", options, dir)
	line, _ := holder.StdinPipe() // it ends with this process
	out, _ := holder.StdoutPipe()
	if err := holder.Start(); err != nil {
		t.Skipf("no mount namespace: %v", err)
	}
	t.Cleanup(func() { line.Close(); holder.Wait() })
	if said, _ := bufio.NewReader(out).ReadString('\n'); said != "mounted\n" {
		t.Skip("a small file system cannot be mounted here")
	}
	pid := fmt.Sprint(holder.Process.Pid)
	return &smallDisk{t: t, dir: dir, here: "/proc/" + pid + "/root" + dir, enter: []string{"nsenter", "-t", pid, "-m"}}
}

// server makes one that keeps its data there.
func (d *smallDisk) server(more settings) *server {
	d.t.Helper()
	all := settings{"node.raft.snapshot_bytes": "8MiB", "node.store.memtable_size": "4MiB", "node.low_space.check_every": "100ms", "node.raft.apply_timeout": "3s", "node.log.level": "warn"}
	for k, v := range more {
		all[k] = v
	}
	s := newServer(d.t, filepath.Join(d.dir, "data"), all)
	s.socket(filepath.Join(d.here, "data", "admin.sock"))
	s.wrap = d.enter
	return s
}

func (d *smallDisk) free() (bytes, inodes int64) {
	d.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.here, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Ffree)
}

// ballast takes all room but so many bytes.
func (d *smallDisk) ballast(leave int64) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.here, "ballast"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	end, _ := f.Seek(0, 2)
	free, _ := d.free()
	if free > leave {
		if err := syscall.Fallocate(int(f.Fd()), 0, end, free-leave); err != nil && err != syscall.ENOSPC {
			d.t.Fatal(err)
		}
	}
}

// clutter takes all inodes but so many.
func (d *smallDisk) clutter(leave int64) {
	d.t.Helper()
	os.MkdirAll(filepath.Join(d.here, "clutter"), 0o700)
	_, free := d.free()
	for i := range max(0, free-leave-1) {
		if os.WriteFile(filepath.Join(d.here, "clutter", fmt.Sprint(i)), nil, 0o600) != nil {
			return
		}
	}
}

// grow makes the disk larger, as an operator does where mail itself fills it.
func (d *smallDisk) grow(size string) {
	d.t.Helper()
	argv := append(d.enter[1:len(d.enter):len(d.enter)], "mount", "-o", "remount,size="+size, d.dir)
	if out, err := exec.Command(d.enter[0], argv...).CombinedOutput(); err != nil {
		d.t.Fatalf("the disk does not grow: %v %s", err, out)
	}
}

// clear gives back what ballast and clutter took.
func (d *smallDisk) clear() {
	os.Remove(filepath.Join(d.here, "ballast"))
	os.RemoveAll(filepath.Join(d.here, "clutter"))
}

// more waits until n messages more are acknowledged.
func (l *ledger) more(t testing.TB, n int, when string) {
	t.Helper()
	n += l.acked()
	until(t, "mail is taken in "+when, func() bool { return l.acked() >= n })
}

// TestAFullDiskRefusesMailAndRecovers lets mail fill the disk up to the marks,
// twice: by itself, and by what others keep there.
func TestAFullDiskRefusesMailAndRecovers(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=520m")
	s := d.server(settings{"node.low_space.soft_bytes": "192MiB", "node.low_space.hard_bytes": "128MiB"})
	s.excused = []string{"space is short"}
	s.start()
	led := newLedger()
	customers := newCustomers(t, s, led, 4)
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: func(r *rand.Rand) int { return sizes(r) * 2 }}
	in.send(6)
	until(t, "mail is refused because it has filled the disk", func() bool { return led.count("452 4.3.1") > 20 })
	free, _ := d.free()
	t.Logf("full with %d messages; %d MiB are left", led.acked(), free>>20)
	for _, c := range customers {
		c.on(t)
	}
	led.more(t, 100, "after the queues have drained") // without any help
	was := led.count("452 4.3.1")
	until(t, "mail is refused again", func() bool {
		d.ballast(160 << 20) // again where the log gives room back
		return led.count("452 4.3.1") > was+20
	})
	s.kill()
	s.start()
	in.end() // what goes out makes room, and new mail would come in for ever
	until(t, "what is queued goes out meanwhile", func() bool { return s.waiting() == 0 })
	d.clear()
	in.send(6)
	led.more(t, 100, "when there is room again")

	d.ballast(8 << 20)
	was = led.count("421 4.3.2")
	until(t, "the node does nothing below the hard mark", func() bool { return led.count("421 4.3.2") > was+5 })
	s.kill()
	s.start()
	d.clear()
	led.more(t, 100, "when there is room again")
	in.end()
	s.drain()
	s.stop()
	led.audit(t, s)
}

// TestADiskWithoutAnyRoomLosesNothing has no marks: the log and the database meet
// the end of the disk themselves. Whether the server lives on or ends and is
// started again, nothing that was acknowledged is lost.
func TestADiskWithoutAnyRoomLosesNothing(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=300m")
	s := d.server(nil)
	s.excused = []string{""} // whatever it says about its disk
	s.start()
	led, r := newLedger(), chance(5)
	customers := newCustomers(t, s, led, 4)
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: sizes, pause: func(r *rand.Rand) int { return r.IntN(20) }}
	in.send(6)
	stop := s.supervise()
	for round := range 4 {
		led.more(t, 50, "with room")
		if round%2 == 0 {
			d.ballast(int64(r.IntN(2 << 20)))
		} // else mail fills it
		until(t, "the disk is full", func() bool { free, _ := d.free(); return free < 64<<10 })
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		if round > 1 {
			s.kill()
			time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		}
		for _, c := range customers {
			c.on(t)
		}
		t.Logf("round %d: %d acknowledged, %v", round, led.acked(), led.said())
		d.clear()
		d.grow(fmt.Sprintf("%dm", 400+100*round)) // most of the room is mail's own
		led.more(t, 20, "when there is room again")
		for _, c := range customers {
			c.off(true)
		}
	}
	in.end()
	starts := stop()
	if !s.alive() {
		s.start()
	}
	for _, c := range customers {
		c.on(t)
	}
	s.drain()
	s.stop()
	t.Logf("the service manager had to start it %d times, two of them after kills", starts)
	led.audit(t, s)
}

// TestADiskWithoutInodesRefusesMailAndRecovers is about small files of others.
func TestADiskWithoutInodesRefusesMailAndRecovers(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=400m,nr_inodes=2000")
	s := d.server(settings{"node.low_space.soft_inodes": 300, "node.low_space.hard_inodes": 100})
	s.excused = []string{""}
	s.start()
	led := newLedger()
	customers := newCustomers(t, s, led, 4)
	in := &load{ledger: led, addr: s.smtp, logins: len(customers), size: sizes, pause: func(r *rand.Rand) int { return r.IntN(60) }}
	in.send(6)
	stop := s.supervise()
	for _, leave := range []int64{200, 50, 1} {
		led.more(t, 50, "with inodes")
		d.clutter(leave)
		code := "452 4.3.1"
		if leave < 100 {
			code = "421 4.3.2"
		}
		was := led.count(code)
		until(t, "mail is refused with "+code, func() bool { return led.count(code) > was+5 })
		if leave == 50 {
			s.kill()
			time.Sleep(500 * time.Millisecond)
		}
		for _, c := range customers {
			c.on(t)
		}
		time.Sleep(time.Second)
		d.clear()
		led.more(t, 50, "when there are inodes again")
	}
	in.end()
	if starts := stop(); starts > 1 {
		t.Errorf("the server had to be started %d times", starts)
	}
	s.drain()
	s.stop()
	led.audit(t, s)
}

func (l *ledger) said() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for k, n := range l.replies {
		out[k] = n
	}
	return out
}
