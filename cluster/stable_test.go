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

// brokenLogFS fails every write in the folder of the log once fail is set.
type brokenLogFS struct {
	host.FS
	fail atomic.Bool
}

func (f *brokenLogFS) broken(name string) bool {
	return f.fail.Load() && strings.Contains(name, "/"+logDir+"/")
}

func (f *brokenLogFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.broken(name) {
		return nil, syscall.EIO
	}
	return f.FS.Create(name, c)
}

func (f *brokenLogFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return &brokenLogFile{file, f, name}, err
}

type brokenLogFile struct {
	vfs.File
	fs   *brokenLogFS
	name string
}

func (f *brokenLogFile) SyncData() error {
	if f.fs.broken(f.name) {
		return syscall.EIO
	}
	return f.File.SyncData()
}

// A node whose log cannot be written loses its lead and stands for election again,
// for which raft saves its term, and panics if it cannot. It must come to its
// orderly end.
func TestALogThatCannotBeWrittenIsNoPanic(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	broken := &brokenLogFS{}
	w.on(func(h *host.Host, _ *Options) { broken.FS, h.FS = h.FS, broken })
	broken.fail.Store(true)
	if _, err := w.mail("lost", "jansen"); err == nil {
		t.Error("mail was taken that could not be written")
	}
	<-w.fail
	time.Sleep(10 * 50 * time.Millisecond) // elections
	w.node.Close()
}
