package cluster

import (
	"strings"
	"sync/atomic"
	"syscall"

	"bsmtpd/host"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failingFS answers every sync of a log segment with an I/O error once fail is
// set.
type failingFS struct {
	host.FS
	fail atomic.Bool
}

func (f *failingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	if err != nil || !strings.HasSuffix(name, walSuffix) {
		return file, err
	}
	return &failingFile{file, f}, nil
}

type failingFile struct {
	vfs.File
	fs *failingFS
}

func (f *failingFile) SyncData() error {
	if f.fs.fail.Load() {
		return syscall.EIO
	}
	return f.File.SyncData()
}
