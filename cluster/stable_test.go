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

// noMetaFS fails to write the log's meta file once fail is set.
type noMetaFS struct {
	host.FS
	fail atomic.Bool
}

func (f *noMetaFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.fail.Load() && strings.Contains(name, "/"+logDir+"/"+metaFileName) {
		return nil, syscall.EIO
	}
	return f.FS.Create(name, c)
}

// A failure to cut the log is one of the disk, as one to write it is.
func TestALogThatCannotBeCutStopsTheNode(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &noMetaFS{}
	w.on(func(h *host.Host, _ *Options) { disk.FS, h.FS = h.FS, disk })
	for range trailingLogs + 10 {
		if _, err := w.mail("kept", "jansen"); err != nil {
			t.Fatal(err)
		}
	}
	disk.fail.Store(true)
	w.node.snapshot()
	if w.node.Failed() == nil {
		t.Error("the node goes on with a log that it could not cut")
	}
	<-w.fail
	w.node.Close()
}
