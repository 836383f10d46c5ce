package cluster

import (
	"os"
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

// countingFS counts what changes the disk, and calls back at one such change.
type countingFS struct {
	host.FS
	n, when atomic.Int64
	then    func()
}

func (c *countingFS) at(n int64, then func()) { c.when.Store(n); c.then = then }

func (c *countingFS) change() {
	if c.n.Add(1) == c.when.Load() {
		c.then()
	}
}

func (c *countingFS) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	c.change()
	f, err := c.FS.Create(name, cat)
	return &countingFile{f, c}, err
}

func (c *countingFS) OpenReadWrite(name string, cat vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	c.change()
	f, err := c.FS.OpenReadWrite(name, cat, o...)
	return &countingFile{f, c}, err
}

func (c *countingFS) Rename(from, to string) error {
	c.change()
	return c.FS.Rename(from, to)
}

func (c *countingFS) Remove(name string) error {
	c.change()
	return c.FS.Remove(name)
}

func (c *countingFS) MkdirAll(dir string, perm os.FileMode) error {
	c.change()
	return c.FS.MkdirAll(dir, perm)
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f *countingFile) Write(p []byte) (int, error) {
	f.fs.change()
	return f.File.Write(p)
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.change()
	return f.File.WriteAt(p, off)
}

func (f *countingFile) Sync() error {
	f.fs.change()
	return f.File.Sync()
}

func (f *countingFile) SyncData() error {
	f.fs.change()
	return f.File.SyncData()
}
