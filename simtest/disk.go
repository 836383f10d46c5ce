package simtest

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"bsmtpd/host"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system of a node's machine until its power fails. It counts
// what changes it, so that the power can fail at any such moment, and not only
// when everything is at rest.
//
// The folder of the log is kept by logDisk, everything else by pebble's crashable
// file system.
type disk struct {
	host.FS
	mem *vfs.MemFS
	log *logDisk

	changes atomic.Int64
	fuse    atomic.Int64 // the change at which the power fails; 0: none
	blow    func()       // called then, before the change is made, by whoever makes it

	broken atomic.Pointer[error] // what changes end with, but for those of breakable
	since  atomic.Int64          // when it broke, in nanoseconds since 1970
}

// newDisk makes an empty disk.
func newDisk() *disk { return diskOf(vfs.NewCrashableMem(), newLogDisk()) }

func diskOf(mem *vfs.MemFS, log *logDisk) *disk {
	return &disk{FS: host.MadeFS(mem), mem: mem, log: log}
}

// inLog reports whether a file is one of the log's.
func inLog(name string) bool { return path.Dir(name) == logFolderName }

const logFolderName = dataDir + "/log"

// afterCrash is the disk as it is found after the power failed now: what was
// synced, and of the rest every block and name with a probability in percent.
func (d *disk) afterCrash(percent int, rng *rand.Rand) *disk {
	return diskOf(d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), d.log.afterCrash(percent, rng))
}

// failAfter lets the power fail at the n-th change from now.
func (d *disk) failAfter(n int64, blow func()) {
	d.blow = blow
	d.fuse.Store(d.changes.Load() + n)
}

// change counts a change of a file, which goes wrong if the disk is broken.
func (d *disk) change(name string) error {
	if d.changes.Add(1) == d.fuse.Load() {
		d.blow()
	}
	if err := d.broken.Load(); err != nil && breakable(name) {
		return &fs.PathError{Op: "write", Path: name, Err: *err}
	}
	return nil
}

// breakable reports whether a file's failure can be simulated. pebble holds its
// locks for ever when it gives up, and in a bubble nothing may wait for a lock; so
// the state database is left to the tests of cluster.
func breakable(name string) bool { return !strings.HasPrefix(name, dataDir+"/state") }

// setFree sets the free and total bytes that the system tells.
func (d *disk) setFree(free uint64) {
	d.mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: diskBytes, UsedBytes: diskBytes - free})
}

const diskBytes = 100 << 30

// Create implements vfs.FS.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(name); err != nil {
		return nil, err
	}
	if inLog(name) {
		return d.wrap(name, of(d.log.open(name, true, true)))
	}
	return d.wrap(name, of(d.FS.Create(name, c)))
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := d.change(name); err != nil {
		return nil, err
	}
	if inLog(name) {
		return d.wrap(name, of(d.log.open(name, true, false)))
	}
	return d.wrap(name, of(d.FS.OpenReadWrite(name, c, o...)))
}

// Open implements vfs.FS.
func (d *disk) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if inLog(name) {
		return d.log.open(name, false, false)
	}
	return d.FS.Open(name, o...)
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	if name == logFolderName {
		return d.wrap(name, of(logFolder{disk: d.log}, nil))
	}
	return d.wrap(name, of(d.FS.OpenDir(name)))
}

// List implements vfs.FS.
func (d *disk) List(dir string) ([]string, error) {
	if dir == logFolderName {
		var out []string
		for _, name := range d.log.list() {
			out = append(out, path.Base(name))
		}
		return out, nil
	}
	return d.FS.List(dir)
}

// Stat implements vfs.FS.
func (d *disk) Stat(name string) (vfs.FileInfo, error) {
	if inLog(name) {
		return d.log.stat(name)
	}
	return d.FS.Stat(name)
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(to); err != nil {
		return nil, err
	}
	return d.wrap(to, of(d.FS.ReuseForWrite(from, to, c)))
}

// opened is what opening a file gives.
type opened struct {
	f   vfs.File
	err error
}

func of(f vfs.File, err error) opened { return opened{f, err} }

func (d *disk) wrap(name string, o opened) (vfs.File, error) {
	if o.err != nil {
		return nil, o.err
	}
	return diskFile{o.f, d, name}, nil
}

// Rename implements vfs.FS.
func (d *disk) Rename(from, to string) error {
	if err := d.change(to); err != nil {
		return err
	}
	if inLog(from) {
		return d.log.rename(from, to)
	}
	return d.FS.Rename(from, to)
}

// Remove implements vfs.FS.
func (d *disk) Remove(name string) error {
	if err := d.change(name); err != nil {
		return err
	}
	if inLog(name) {
		return d.log.remove(name)
	}
	return d.FS.Remove(name)
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	if err := d.change(dir); err != nil {
		return err
	}
	return d.FS.MkdirAll(dir, perm)
}

type diskFile struct {
	vfs.File
	disk *disk
	name string
}

func (f diskFile) Write(p []byte) (int, error) {
	if err := f.disk.change(f.name); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f diskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.change(f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f diskFile) Sync() error {
	if err := f.disk.change(f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f diskFile) SyncData() error {
	if err := f.disk.change(f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}
