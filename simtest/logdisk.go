package simtest

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logDisk is one directory without folders, for the files of the log. pebble's
// crashable file system copies a whole file at every sync, which is too slow for a
// file that grows by a line and is synced after each: here a sync costs what was
// written since the last.
type logDisk struct {
	mu     sync.Mutex // guards what follows, and the files
	names  map[string]*logFile
	synced map[string]*logFile // what names was at the last sync of the directory
	lies   bool                // a sync says that it is done, and does nothing
}

// logFile is a file's content.
type logFile struct {
	data, synced []byte
	lo, hi       int // data[lo:hi] may differ from synced
	changed      time.Time
}

// logBlock is what a crash keeps or loses as one.
const logBlock = 4096

func newLogDisk() *logDisk {
	return &logDisk{names: map[string]*logFile{}, synced: map[string]*logFile{}}
}

// afterCrash is the directory as it is found after the power failed now.
func (d *logDisk) afterCrash(percent int, rng *rand.Rand) *logDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := func() bool { return percent > 0 && rng.IntN(100) < percent }
	out := newLogDisk()
	all := maps.Clone(d.names)
	for name, f := range d.synced {
		if all[name] == nil {
			all[name] = f
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) { // in order, for the stream of chance
		f := d.synced[name]
		if now := d.names[name]; now != f && kept() {
			f = now
		}
		if f != nil {
			out.names[name] = f.afterCrash(kept)
		}
	}
	out.synced = maps.Clone(out.names)
	return out
}

func (f *logFile) afterCrash(kept func() bool) *logFile {
	b := slices.Clone(f.synced)
	for at := f.lo - f.lo%logBlock; at < f.hi; at += logBlock {
		if !kept() {
			continue
		}
		end := min(at+logBlock, len(f.data))
		if grow := end - len(b); grow > 0 {
			b = append(b, make([]byte, grow)...)
		}
		copy(b[at:end], f.data[at:end])
	}
	return &logFile{data: b, synced: slices.Clone(b), changed: f.changed}
}

func (d *logDisk) find(name string) (*logFile, error) {
	f := d.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}

// open opens a file; create makes it if it is not there, empty makes it anew.
func (d *logDisk) open(name string, create, empty bool) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.find(name)
	if empty || err != nil && create {
		f, err = &logFile{changed: time.Now()}, nil
		d.names[name] = f
	}
	if err != nil {
		return nil, err
	}
	return &logHandle{disk: d, f: f, name: name}, nil
}

func (d *logDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.find(name)
	delete(d.names, name)
	return err
}

func (d *logDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.find(from)
	if err == nil {
		d.names[to] = f
		delete(d.names, from)
	}
	return err
}

func (d *logDisk) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names))
}

func (d *logDisk) stat(name string) (vfs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return logInfo{name, int64(len(f.data)), f.changed}, nil
}

// logHandle is an open file.
type logHandle struct {
	disk *logDisk
	f    *logFile
	name string
	at   int // for Read and Write
}

var _ vfs.File = (*logHandle)(nil)

// ReadAt implements io.ReaderAt.
func (h *logHandle) ReadAt(p []byte, off int64) (int, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Read implements io.Reader.
func (h *logHandle) Read(p []byte) (int, error) {
	n, err := h.ReadAt(p, int64(h.at))
	h.at += n
	if n > 0 {
		err = nil
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (h *logHandle) WriteAt(p []byte, off int64) (int, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	f, end := h.f, int(off)+len(p)
	lo := min(int(off), len(f.data))
	if grow := end - len(f.data); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
	}
	copy(f.data[off:], p)
	if f.lo == f.hi {
		f.lo, f.hi = lo, end
	}
	f.lo, f.hi = min(f.lo, lo), max(f.hi, end)
	f.changed = time.Now()
	return len(p), nil
}

// Write implements io.Writer.
func (h *logHandle) Write(p []byte) (int, error) {
	n, err := h.WriteAt(p, int64(h.at))
	h.at += n
	return n, err
}

// lie makes the disk say that it has synced, from now on.
func (d *logDisk) lie() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies = true
}

// SyncData implements vfs.File.
func (h *logHandle) SyncData() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	f := h.f
	if h.disk.lies {
		return nil
	}
	if grow := len(f.data) - len(f.synced); grow > 0 {
		f.synced = append(f.synced, make([]byte, grow)...)
	}
	copy(f.synced[f.lo:f.hi], f.data[f.lo:f.hi])
	f.lo, f.hi = 0, 0
	return nil
}

// Sync implements vfs.File.
func (h *logHandle) Sync() error { return h.SyncData() }

// SyncTo implements vfs.File; it promises nothing.
func (h *logHandle) SyncTo(int64) (bool, error) { return false, nil }

// Stat implements vfs.File.
func (h *logHandle) Stat() (vfs.FileInfo, error) { return h.disk.stat(h.name) }

// Preallocate implements vfs.File; memory is not short.
func (h *logHandle) Preallocate(_, _ int64) error { return nil }

// Prefetch implements vfs.File.
func (h *logHandle) Prefetch(_, _ int64) error { return nil }

// Fd implements vfs.File.
func (h *logHandle) Fd() uintptr { return vfs.InvalidFd }

// Close implements vfs.File.
func (h *logHandle) Close() error { return nil }

// logFolder is the directory opened for its sync.
type logFolder struct {
	vfs.File // nil: nothing else is done with it
	disk     *logDisk
}

// Sync implements vfs.File: names are durable.
func (f logFolder) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.synced = maps.Clone(f.disk.names)
	return nil
}

// Close implements vfs.File.
func (f logFolder) Close() error { return nil }

type logInfo struct {
	name string
	size int64
	at   time.Time
}

func (i logInfo) Name() string           { return path.Base(i.name) }
func (i logInfo) Size() int64            { return i.size }
func (i logInfo) Mode() os.FileMode      { return 0o600 }
func (i logInfo) ModTime() time.Time     { return i.at }
func (i logInfo) IsDir() bool            { return false }
func (i logInfo) Sys() any               { return nil }
func (i logInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
