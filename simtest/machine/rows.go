package machine

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"bsmtpd/kv"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// store is where a replica keeps its rows.
type store interface {
	kv.Reader
	// change makes an atomic change.
	change(do func(tx kv.Tx) error) error
	// flush makes everything so far durable.
	flush()
	// crashed is what is found after the power failed now.
	crashed(rng *rand.Rand) store
	// copied is another replica's store, restored from this one as it was at
	// its last flush.
	copied() store
	close()
}

// memory keeps rows in a map and is quick. It loses everything after its last
// flush.
type memory struct {
	rows
	durable rows
}

var _ store = (*memory)(nil)

func newMemory() *memory {
	return &memory{rows{values: map[string][]byte{}}, rows{values: map[string][]byte{}}}
}

func (m *memory) change(do func(kv.Tx) error) error { return do(&m.rows) }
func (m *memory) flush()                            { m.durable = m.rows.clone() }
func (m *memory) crashed(*rand.Rand) store          { return &memory{m.durable.clone(), m.durable} }
func (m *memory) copied() store                     { return m.crashed(nil) }
func (m *memory) close()                            {}

// rows are ordered keys with values.
type rows struct {
	keys   []string
	values map[string][]byte
}

var _ kv.Tx = (*rows)(nil)

func (r *rows) clone() rows { return rows{slices.Clone(r.keys), maps.Clone(r.values)} }

// Get implements kv.Reader.
func (r *rows) Get(key []byte) ([]byte, error) { return bytes.Clone(r.values[string(key)]), nil }

func (r *rows) at(key []byte) int {
	i, _ := slices.BinarySearch(r.keys, string(key))
	return i
}

// Scan implements kv.Reader.
func (r *rows) Scan(lower, upper []byte, _ *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for _, k := range r.keys[r.at(lower):max(r.at(lower), r.at(upper))] {
			if !yield([]byte(k), r.values[k]) {
				return
			}
		}
	}
}

// Last implements kv.Reader.
func (r *rows) Last(lower, upper []byte) ([]byte, []byte, error) {
	if i := r.at(upper); i > 0 && r.keys[i-1] >= string(lower) {
		return []byte(r.keys[i-1]), bytes.Clone(r.values[r.keys[i-1]]), nil
	}
	return nil, nil, nil
}

// Set implements kv.Tx.
func (r *rows) Set(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	if _, there := r.values[string(key)]; !there {
		r.keys = slices.Insert(r.keys, r.at(key), string(key))
	}
	r.values[string(key)] = bytes.Clone(value)
	return nil
}

// Delete implements kv.Tx.
func (r *rows) Delete(key []byte) error {
	if _, there := r.values[string(key)]; there {
		i := r.at(key)
		r.keys = slices.Delete(r.keys, i, i+1)
		delete(r.values, string(key))
	}
	return nil
}

// disk keeps rows where a node keeps them: in pebble, on a file system that loses
// what was not synced. It is a hundred times as slow.
type disk struct {
	*kv.Store
	fs *vfs.MemFS
}

var _ store = (*disk)(nil)

func newDisk() *disk { return openDisk(vfs.NewCrashableMem(), stateFolder) }

const stateFolder = "state"

func openDisk(fs *vfs.MemFS, dir string) *disk {
	db, err := kv.Open(dir, kv.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, Still: true, Logger: quiet{}})
	must(err)
	return &disk{Store: db, fs: fs}
}

func (d *disk) change(do func(kv.Tx) error) error {
	tx := d.Begin()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func (d *disk) flush() { must(d.Flush()) }

// crashed implements store: pebble may have flushed more than it was asked to.
func (d *disk) crashed(rng *rand.Rand) store {
	return openDisk(d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}), stateFolder)
}

func (d *disk) copied() store {
	d.flush()
	dir := "copy"
	for _, err := d.fs.Stat(dir); err == nil; _, err = d.fs.Stat(dir) {
		dir += "x"
	}
	must(d.Checkpoint(dir))
	fs := vfs.NewCrashableMem()
	copyFolder(d.fs, fs, dir)
	return openDisk(fs, stateFolder)
}

func copyFolder(from, to *vfs.MemFS, dir string) {
	must(to.MkdirAll(stateFolder, 0o700))
	names, err := from.List(dir)
	must(err)
	for _, name := range names {
		must(vfs.CopyAcrossFS(from, from.PathJoin(dir, name), to, to.PathJoin(stateFolder, name)))
	}
}

func (d *disk) close() { must(d.Store.Close()) }

type quiet struct{}

func (quiet) Infof(string, ...any)        {}
func (quiet) Errorf(f string, a ...any)   { panic(fmt.Sprintf(f, a...)) }
func (quiet) Fatalf(f string, a ...any)   { panic(fmt.Sprintf(f, a...)) }
func hasPrefix(key []byte, p string) bool { return strings.HasPrefix(string(key), p) }

// must is for what cannot fail in memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
