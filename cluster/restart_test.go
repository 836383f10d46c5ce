package cluster

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"bsmtpd/host"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Raft's own entries count for the index of a snapshot without coming to the
// rows; a node that nobody gave any work must still find its directory whole.
func TestAnIdleNodeMayBeRestartedAsOftenAsOneLikes(t *testing.T) {
	w := newWorld(t)
	for range trailingLogs/2 + 4 { // each start adds two entries or three
		w.node.Close()
		w.start(false)
	}
	w.account("jansen", 1<<20)
	w.node.Close()
	w.start(false)
	if a, err := w.node.Directory().Account("jansen"); err != nil || a == nil {
		t.Errorf("the account is gone: %v, %v", a, err)
	}
	w.node.Close()
}

// first is where the log begins.
func (w *world) first() uint64 {
	w.t.Helper()
	n, err := w.node.wal.FirstIndex()
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// The log is cut after snapshots, and rows and what is left of the log still
// make the whole, wherever the power fails.
func TestTheLogIsCutAndARestartHasEverything(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<30)
	bodies := map[mail.ID]string{}
	rng := rand.New(rand.NewPCG(5, 6))
	begins := w.first()
	for round := range uint64(6) {
		for range 2 * trailingLogs { // one entry each: nobody else proposes
			body := fmt.Sprintf("%d %s", len(bodies), strings.Repeat("x", rng.IntN(3000)))
			got, err := w.mail(body, "jansen")
			if err != nil {
				t.Fatal(err)
			}
			bodies[got.ID] = body
		}
		if round%3 != 2 { // in some rounds the power fails before there was a snapshot
			w.node.snapshot()
			now := w.first()
			if now <= begins {
				t.Errorf("round %d: the log begins at %d after a snapshot, as before", round, now)
			}
			begins = now
			if last, _ := w.node.wal.LastIndex(); last-now > 2*trailingLogs {
				t.Errorf("round %d: %d entries are left in the log", round, last-now)
			}
		}
		for range rng.IntN(3) { // some more after the snapshot
			got, err := w.mail("after", "jansen")
			if err != nil {
				t.Fatal(err)
			}
			bodies[got.ID] = "after"
		}
		before := w.hash()
		w.crash(round)
		w.start(false)
		if w.first() < begins {
			t.Errorf("round %d: entries that were cut off are back", round)
		}
		if got := w.hash(); got != before {
			t.Fatalf("round %d: the rows are not those from before the power cut", round)
		}
	}
	for id, body := range bodies {
		if w.body("account/jansen", id) != body {
			t.Fatalf("the body of %s has changed", id)
		}
	}
	names, err := w.disk.List("/data/snapshots")
	if err != nil || len(names) > keepSnapshots {
		t.Errorf("snapshots %v are kept, %v; at most %d", names, err, keepSnapshots)
	}
	w.node.Close()
}

// hash is a digest of the rows but for the machine's own mark, which moves with
// every start.
func (w *world) hash() string {
	w.t.Helper()
	h := sha256.New()
	var err error
	for k, v := range w.node.Rows().Scan([]byte{0}, []byte{0xff}, &err) {
		if string(k) != appliedKey {
			fmt.Fprintf(h, "%x %x\n", k, v)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A node whose power fails at any write of its first start is no worse off than
// one that never started, except that --init may have to be said.
func TestAPowerCutDuringTheFirstStart(t *testing.T) {
	for cut := int64(1); ; cut += 11 {
		disk := vfs.NewCrashableMem()
		var after *vfs.MemFS
		count := &countingFS{FS: host.MadeFS(disk)}
		count.at(cut, func() {
			after = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(cut), 7))})
		})
		w := &world{t: t, disk: disk}
		h, o := w.options(true)
		h.FS = count
		n, err := Open(h, o)
		if err != nil {
			t.Fatal(err)
		}
		w.node = n
		if err := n.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.account("jansen", 1<<20)
		n.Close()
		if after == nil {
			if cut < 30 {
				t.Errorf("only %d writes were seen", cut)
			}
			return
		}
		v := &world{t: t, disk: after}
		v.start(true)
		v.account("devries", 1<<20)
		v.node.Close()
		v.start(false)
		if a, err := v.node.Directory().Account("devries"); err != nil || a == nil {
			t.Errorf("cut at write %d: the account is gone: %v", cut, err)
		}
		v.node.Close()
	}
}

func TestALogAndRowsThatDoNotBelongTogetherAreRefused(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<30)
	for range 2 * trailingLogs {
		if _, err := w.mail("x", "jansen"); err != nil {
			t.Fatal(err)
		}
	}
	w.node.Close()
	early := w.disk.CrashClone(vfs.CrashCloneCfg{})
	w.start(false)
	for range 2 * trailingLogs {
		if _, err := w.mail("y", "jansen"); err != nil {
			t.Fatal(err)
		}
	}
	w.node.Close()
	late := w.disk.CrashClone(vfs.CrashCloneCfg{})
	for _, c := range []struct {
		name, want string
		parts      map[string]*vfs.MemFS // of another time than the rest
		base       *vfs.MemFS
	}{
		{"rows from a backup, a newer log", "rows end at entry", map[string]*vfs.MemFS{stateDir: early}, late},
		{"a log from a backup, newer rows", "log ends at entry", map[string]*vfs.MemFS{logDir: early, snapshotDir: early}, late},
		{"a snapshot newer than the rows", "a snapshot promises", map[string]*vfs.MemFS{snapshotDir: late}, early},
		{"no snapshot for a log that was cut", "no snapshot covers", map[string]*vfs.MemFS{snapshotDir: nil}, late},
		{"an old snapshot for a log that was cut", "no snapshot covers", map[string]*vfs.MemFS{snapshotDir: early}, late},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &world{t: t, disk: c.base.CrashClone(vfs.CrashCloneCfg{})}
			for part, from := range c.parts {
				dir := "/data/" + part
				if err := v.disk.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				v.disk.MkdirAll(dir, 0o700)
				if from == nil {
					continue
				}
				names, err := from.List(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range names {
					data, err := host.ReadFile(from, dir+"/"+name, 1<<30)
					if err == nil {
						err = host.WriteFile(v.disk, dir+"/"+name, data)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			n, err := Open(v.options(false))
			if err == nil {
				n.Close()
				t.Fatal("the node started")
			}
			if mail.KindOf(err) != mail.Broken || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q (%s) does not say %q", err, mail.KindOf(err), c.want)
			}
		})
	}
}
