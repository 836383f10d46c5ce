package cluster

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bsmtpd/host"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fullFS has no room for rows while it is full. The log has taken its room before.
type fullFS struct {
	host.FS
	full  atomic.Bool
	tries atomic.Int64
}

func (f *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.full.Load() && strings.HasSuffix(name, ".sst") {
		f.tries.Add(1)
		return nil, syscall.ENOSPC
	}
	return f.FS.Create(name, c)
}

// A full disk is no reason to stop, and none to try as fast as the processor can.
func TestRowsThatCannotBeWrittenAreTriedAgainInTheirTime(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &fullFS{}
	w.on(func(h *host.Host, _ *Options) { disk.FS, h.FS = h.FS, disk })
	if _, err := w.mail("before", "jansen"); err != nil {
		t.Fatal(err)
	}
	disk.full.Store(true)
	w.node.fsm.due <- struct{}{}
	began := time.Now()
	for disk.tries.Load() < 3 {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%d tries to write rows", disk.tries.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(began); took < 2*errorPause {
		t.Errorf("three tries in %s; %s between two", took, errorPause)
	}
	got, err := w.mail("meanwhile", "jansen")
	if err != nil {
		t.Fatalf("mail is not taken in although the log has room: %v", err)
	}
	disk.full.Store(false)
	if err := w.node.Close(); err != nil {
		t.Fatal(err)
	}
	w.start(false)
	if b := w.body("account/jansen", got.ID); b != "meanwhile" {
		t.Errorf("the message is %q", b)
	}
	w.node.Close()
}

// Whoever stops a node on a full disk does not wait until there is room.
func TestANodeWhoseRowsCannotBeWrittenCanBeClosed(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &fullFS{}
	w.on(func(h *host.Host, _ *Options) { disk.FS, h.FS = h.FS, disk })
	if _, err := w.mail("kept", "jansen"); err != nil {
		t.Fatal(err)
	}
	disk.full.Store(true)
	closed := make(chan error, 1)
	go func() { closed <- w.node.Close() }()
	select {
	case err := <-closed:
		if err == nil {
			t.Error("nothing is said of the rows that were not flushed")
		}
	case <-time.After(4 * closePatience):
		t.Error("the node waits for room although it is to end")
	}
	disk.full.Store(false) // what was left behind may end
}
