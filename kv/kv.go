// Package kv keeps ordered keys that change in one atomic batch, on pebble.
//
// The write-ahead log of pebble is off: the Raft log is the only one. What is
// on disk after a crash is therefore the state after some earlier batch, whole;
// the owner writes the index of the last command into every batch and replays
// from there. Flush makes everything before it durable.
package kv

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Reader reads rows. Values it returns belong to the caller.
type Reader interface {
	// Get returns nil and no error where there is no such row.
	Get(key []byte) ([]byte, error)

	// Scan gives the rows with lower <= key < upper in order. Key and value
	// are only good until the next step. A failing disk ends the sequence and
	// sets *err, which may be nil to begin with.
	Scan(lower, upper []byte, err *error) iter.Seq2[[]byte, []byte]

	// Last returns the row with the greatest key in the range, or nil.
	Last(lower, upper []byte) (key, value []byte, err error)
}

// Tx is one atomic change: its own writes are seen by its reads.
type Tx interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
}

// Options tune a Store. Zero values mean the defaults beside them.
type Options struct {
	FS            vfs.FS // required
	CacheBytes    int64  // 64 MiB
	MemTableBytes uint64 // 16 MiB
	OpenFiles     int    // 1000; pebble keeps 64 at least
	Logger        pebble.Logger
	ReadOnly      bool
	MustExist     bool // refuse to make a new database

	// Damaged is told of each bad block or lost file that a read or a compaction
	// meets, which may be often. It must not block.
	Damaged func(*Damage)

	// Still begins compactions after flushes and other compactions only. By
	// itself pebble also looks ten times a second, and in simulated time such
	// looking is most of what an idle day costs.
	Still bool
}

// memTables are the tables of changes in memory that may wait to be written to
// files; with that many, writes wait.
const memTables = 4

// tableBytes is the size of a table's rows and of the values kept beside them.
const tableBytes = 64 << 20

// Store is a pebble database without its write-ahead log.
type Store struct {
	db      *pebble.DB
	damaged func(*Damage) // nil: nobody is told
}

// Open opens the database in dir, making it where there is none.
//
// Errors in the background go three ways. What pebble can undo, such as a full
// disk while rows are written to a file, goes to Logger.Errorf and is tried again
// until it succeeds. What it cannot undo, a failed write or fsync of its list of
// files, goes to Logger.Fatalf, which must stop the node and not return. A damaged
// file goes to Options.Damaged and, as *Damage, to whoever wanted to read it.
func Open(dir string, o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	// Pebble takes the memory of its tables of changes out of the cache. Without
	// theirs on top, a busy node had no cache at all and read the same few
	// account rows from files for each recipient.
	cache := pebble.NewCache(o.CacheBytes + memTables*int64(o.MemTableBytes))
	defer cache.Unref()
	opts := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		DisableWAL:                  true,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                o.OpenFiles,
		FormatMajorVersion:          pebble.FormatNewest,
		ReadOnly:                    o.ReadOnly,
		ErrorIfNotExists:            o.MustExist,
		Logger:                      o.Logger,
		EventListener:               listener(o),
	}
	if o.Still {
		opts.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	}
	// Bodies are large, written once and deleted once. Kept apart from the
	// rows they are not rewritten by every compaction of the tree; with a small
	// depth they were written once more as soon as their rows were compacted.
	// What a large one costs is locality, and bodies are read one at a time.
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           1 << 10,
			MaxBlobReferenceDepth: 1000,
			TargetGarbageRatio:    0.3,
			RewriteMinimumAge:     0,
		}
	}
	// Pebble counts the values that a table refers to as part of its size. With the
	// usual 2 MiB each flush of bodies made a dozen tables of a few rows, and an
	// fsync for each of them.
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = tableBytes
	}
	// Mail is mostly base64 and does not compress (doc/benchmarks.md).
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	db, err := pebble.Open(dir, opts)
	if errors.Is(err, syscall.EAGAIN) { // what the lock of the directory says
		return nil, fmt.Errorf("the state database in %s is in use by another bsmtpd; stop that one, or name another data directory: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the state database in %s: %w", dir, told(err))
	}
	if err := whole(db, o.FS, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open the state database in %s: %w", dir, err), db.Close())
	}
	return &Store{db: db, damaged: o.Damaged}, nil
}

// Close flushes nothing: what was not flushed is replayed from the log.
func (s *Store) Close() (err error) {
	defer leaked(&err)
	return s.db.Close()
}

// Flush returns when everything committed before the call is durable.
func (s *Store) Flush() error { return s.db.Flush() }

// Checkpoint makes a copy of the database in dir by hard links. Flush first:
// there is no log that would carry what is in memory.
func (s *Store) Checkpoint(dir string) error { return s.db.Checkpoint(dir) }

// Metrics gives pebble's own figures.
func (s *Store) Metrics() *pebble.Metrics { return s.db.Metrics() }

var _ Reader = (*Store)(nil)

// Get implements Reader on the newest committed state.
func (s *Store) Get(key []byte) ([]byte, error) {
	v, err := get(s.db, key)
	s.hear(err)
	return v, err
}

// Scan implements Reader on the state at the first step.
func (s *Store) Scan(lower, upper []byte, err *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		scan(s.db, lower, upper, err)(yield)
		s.hear(*err)
	}
}

// Last implements Reader.
func (s *Store) Last(lower, upper []byte) ([]byte, []byte, error) { return last(s.db, lower, upper) }

// Snapshot is one unchanging state of a Store; Close it soon, it keeps deleted
// rows on disk.
type Snapshot struct{ sn *pebble.Snapshot }

var _ Reader = (*Snapshot)(nil)

// Snapshot freezes the newest committed state.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{s.db.NewSnapshot()} }

// Get implements Reader.
func (s *Snapshot) Get(key []byte) ([]byte, error) { return get(s.sn, key) }

// Scan implements Reader.
func (s *Snapshot) Scan(lower, upper []byte, err *error) iter.Seq2[[]byte, []byte] {
	return scan(s.sn, lower, upper, err)
}

// Last implements Reader.
func (s *Snapshot) Last(lower, upper []byte) ([]byte, []byte, error) { return last(s.sn, lower, upper) }

// Close releases the state.
func (s *Snapshot) Close() error { return s.sn.Close() }

// Batch is a Tx of a Store: nothing of it is seen by others before Commit.
//
// Most changes only get and set single rows. For those a map of what the batch
// has touched is enough; pebble's index over the batch costs as much as the rest
// of it, and is made when somebody scans.
type Batch struct {
	db      *pebble.DB
	b       *pebble.Batch
	indexed bool
	touched map[string]touched
}

// touched is a row that a Batch has read or written.
type touched struct {
	value  []byte // nil: there is none
	inside bool   // the value is large and only in the batch
}

// maxTouched bounds the values that a Batch keeps a second time.
const maxTouched = 1 << 10

var _ Tx = (*Batch)(nil)

// Begin starts a change. End it with Commit or Discard.
func (s *Store) Begin() *Batch { return s.BeginSized(0) }

// BeginSized starts a change of about so many bytes: a batch that grows step by
// step copies bodies again and again.
func (s *Store) BeginSized(bytes int) *Batch {
	b := s.db.NewBatch(pebble.WithInitialSizeBytes(max(bytes, 1<<10)))
	return &Batch{db: s.db, b: b, touched: map[string]touched{}}
}

// index lets reads see the batch itself.
func (t *Batch) index() error {
	if t.indexed {
		return nil
	}
	b := t.db.NewIndexedBatch()
	if err := b.Apply(t.b, nil); err != nil {
		return fmt.Errorf("index a change: %w", err)
	}
	old := t.b
	t.b, t.indexed = b, true
	return old.Close()
}

// Get implements Reader.
func (t *Batch) Get(key []byte) ([]byte, error) {
	r, ok := t.touched[string(key)]
	if ok && !r.inside {
		return bytes.Clone(r.value), nil
	}
	if !ok { // so the batch does not have it
		v, err := get(t.db, key)
		if err == nil && len(v) <= maxTouched {
			t.touched[string(key)] = touched{value: bytes.Clone(v)}
		}
		return v, err
	}
	if err := t.index(); err != nil {
		return nil, err
	}
	return get(t.b, key)
}

// Scan implements Reader.
func (t *Batch) Scan(lower, upper []byte, err *error) iter.Seq2[[]byte, []byte] {
	if e := t.index(); e != nil {
		*err = e
		return func(func(k, v []byte) bool) {}
	}
	return scan(t.b, lower, upper, err)
}

// Last implements Reader.
func (t *Batch) Last(lower, upper []byte) ([]byte, []byte, error) {
	if err := t.index(); err != nil {
		return nil, nil, err
	}
	return last(t.b, lower, upper)
}

// Set implements Tx; it copies key and value.
func (t *Batch) Set(key, value []byte) error {
	if len(value) > maxTouched {
		t.touched[string(key)] = touched{inside: true}
	} else {
		t.touched[string(key)] = touched{value: append([]byte{}, value...)}
	}
	return t.b.Set(key, value, nil)
}

// Delete implements Tx.
func (t *Batch) Delete(key []byte) error {
	t.touched[string(key)] = touched{}
	return t.b.Delete(key, nil)
}

// Commit makes the change visible, all of it or nothing. It does not make it
// durable: see Flush.
func (t *Batch) Commit() error {
	if err := t.b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("commit to the state database: %w", err)
	}
	return t.b.Close()
}

// Discard drops the change.
func (t *Batch) Discard() error { return t.b.Close() }

func get(r pebble.Reader, key []byte) (out []byte, err error) {
	defer caught(&err)
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read row %q: %w", key, told(err))
	}
	out = bytes.Clone(v)
	if out == nil {
		out = []byte{} // an empty row is a row
	}
	if err := closer.Close(); err != nil { // what became of a large value is told here
		return nil, fmt.Errorf("read row %q: %w", key, told(err))
	}
	return out, nil
}

func scan(r pebble.Reader, lower, upper []byte, errp *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			*errp = fmt.Errorf("scan rows from %q: %w", lower, told(err))
			return
		}
		defer func() {
			if err := it.Close(); err != nil && *errp == nil {
				*errp = fmt.Errorf("scan rows from %q: %w", lower, told(err))
			}
		}()
		for ok := it.First(); ok; ok = it.Next() {
			v, err := valueOf(it)
			if err != nil {
				*errp = fmt.Errorf("read row %q: %w", it.Key(), told(err))
				return
			}
			if !yield(it.Key(), v) {
				return
			}
		}
	}
}

func last(r pebble.Reader, lower, upper []byte) ([]byte, []byte, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, nil, fmt.Errorf("read the last row below %q: %w", upper, told(err))
	}
	defer it.Close()
	if !it.Last() {
		return nil, nil, told(it.Error())
	}
	v, err := valueOf(it)
	if err != nil {
		return nil, nil, fmt.Errorf("read row %q: %w", it.Key(), told(err))
	}
	return bytes.Clone(it.Key()), bytes.Clone(v), nil
}

// valueOf is the value at the iterator's place.
func valueOf(it *pebble.Iterator) (v []byte, err error) {
	defer caught(&err)
	return it.ValueAndErr()
}

// PrefixEnd is the smallest key greater than every key that begins with prefix:
// the upper bound for a Scan of the prefix. The prefix must not be all 0xff.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	panic("kv: PrefixEnd of a prefix that is all 0xff; row prefixes are ASCII")
}
