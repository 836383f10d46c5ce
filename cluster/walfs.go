package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"bsmtpd/host"
	"bsmtpd/kv"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft-wal/types"
)

const writeCategory = vfs.WriteCategoryUnspecified

// walFS lets raft-wal write through host.FS, so that a simulation can take its
// disk away.
type walFS struct {
	fs host.FS
	*patience
}

var _ types.VFS = walFS{}

// ListDir implements types.VFS.
func (w walFS) ListDir(dir string) ([]string, error) {
	names, err := w.fs.List(dir)
	slices.Sort(names)
	return names, err
}

// Create implements types.VFS: the file's name is durable when it returns.
// raft-wal does not come back to a segment that could not be begun, so it waits.
func (w walFS) Create(dir, name string, size uint64) (f types.WritableFile, err error) {
	err = w.until("the next segment of the log", func() error {
		f, err = w.create(dir, name, size)
		return err
	})
	return f, err
}

func (w walFS) create(dir, name string, size uint64) (types.WritableFile, error) {
	full := path.Join(dir, name)
	if _, err := w.fs.Stat(full); err == nil {
		return nil, &fs.PathError{Op: "create", Path: full, Err: fs.ErrExist}
	}
	f, err := w.fs.OpenReadWrite(full, writeCategory)
	if err != nil {
		return nil, err
	}
	// Room that is taken now cannot be missing when mail must be written.
	if err := f.Preallocate(0, int64(size)); err != nil {
		return nil, errors.Join(err, f.Close(), w.fs.Remove(full)) // it may have taken what there was
	}
	if err := errors.Join(f.Sync(), host.SyncDir(w.fs, dir)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return walFile{f}, nil
}

// Delete implements types.VFS.
func (w walFS) Delete(dir, name string) error {
	if err := w.fs.Remove(path.Join(dir, name)); err != nil {
		return err
	}
	return host.SyncDir(w.fs, dir)
}

// OpenReader implements types.VFS.
func (w walFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return w.fs.Open(path.Join(dir, name))
}

// OpenWriter implements types.VFS. OpenReadWrite would make a missing file.
func (w walFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	full := path.Join(dir, name)
	if _, err := w.fs.Stat(full); err != nil {
		return nil, err
	}
	f, err := w.fs.OpenReadWrite(full, writeCategory)
	if err != nil {
		return nil, err
	}
	// A crash may have come before the segment had its room.
	if err := f.Preallocate(0, walSegmentBytes); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return walFile{f}, nil
}

// walFile writes a segment. Its room was taken at creation; syncing data brings
// along the length, and that is all there is to it.
type walFile struct{ vfs.File }

func (f walFile) Sync() error { return f.File.SyncData() }

// metaFile is raft-wal's MetaStore: a small file that is replaced as a whole. It
// changes when a segment is begun or ended, and at elections.
type metaFile struct {
	fs   host.FS
	wait *patience // nil: nothing waits
	name string

	mu   sync.Mutex // guards meta; held while the file is written, which nobody waits for but writers
	meta walMeta
}

type walMeta struct {
	State  types.PersistentState `cbor:"1,keyasint"`
	Stable map[string][]byte     `cbor:"2,keyasint,omitempty"`
}

var _ types.MetaStore = (*metaFile)(nil)

const (
	metaFileName    = "meta"
	maxMetaFile     = 1 << 20
	walSuffix       = ".wal"
	walSegmentBytes = 64 << 20
)

// Load implements types.MetaStore. Segments without their meta file would be
// deleted by raft-wal as left-overs; that must not happen to a log whose meta
// file was lost.
func (m *metaFile) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.name = path.Join(dir, metaFileName)
	data, err := host.ReadFile(m.fs, m.name, maxMetaFile)
	if errors.Is(err, fs.ErrNotExist) {
		names, err := m.fs.List(dir)
		if err != nil {
			return types.PersistentState{}, err
		}
		if slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, walSuffix) }) {
			return types.PersistentState{}, fmt.Errorf("%s is missing beside log segments: restore the whole data directory from a backup, or replace this node", m.name)
		}
		m.meta = walMeta{Stable: map[string][]byte{}}
		return m.meta.State, nil
	}
	if err != nil {
		return types.PersistentState{}, err
	}
	var meta walMeta
	if data, err = cutSum(data); err == nil {
		err = kv.Decode(data, &meta)
	}
	if err != nil {
		return types.PersistentState{}, fmt.Errorf("%s is damaged: %w; restore the whole data directory from a backup, or replace this node", m.name, err)
	}
	if meta.Stable == nil {
		meta.Stable = map[string][]byte{}
	}
	m.meta = meta
	return meta.State, nil
}

// CommitState implements types.MetaStore.
func (m *metaFile) CommitState(s types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meta.State = s
	return m.write()
}

// sumWord stands before the CRC-32C at the end of the meta file.
const sumWord = "crc:"

func addSum(data []byte) []byte {
	return binary.BigEndian.AppendUint32(append(data, sumWord...), crc32.Checksum(data, castagnoli))
}

// cutSum is data without its checksum. A file of the time before there was one
// has none.
func cutSum(data []byte) ([]byte, error) {
	at := len(data) - len(sumWord) - 4
	if at < 0 || string(data[at:at+len(sumWord)]) != sumWord {
		return data, nil
	}
	if crc32.Checksum(data[:at], castagnoli) != binary.BigEndian.Uint32(data[len(data)-4:]) {
		return nil, errors.New("its checksum is wrong")
	}
	return data[:at], nil
}

// GetStable implements types.MetaStore.
func (m *metaFile) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.meta.Stable[string(key)]), nil
}

// SetStable implements types.MetaStore.
func (m *metaFile) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meta.Stable[string(key)] = slices.Clone(value)
	return m.write()
}

func (m *metaFile) write() error {
	return m.wait.until("the log's meta file", func() error { return host.WriteFile(m.fs, m.name, addSum(kv.Encode(m.meta))) })
}

// Close implements io.Closer.
func (m *metaFile) Close() error { return nil }
