package cluster

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errorPause is how long a failure of the file system is kept back from pebble.
const errorPause = 500 * time.Millisecond

// stateFS is the file system of the state database. Where rows cannot be written,
// pebble tries again at once and says so each time: on a full disk thousands of
// times a second, and the log of that fills what is left. So failures take a
// while. Nobody waits for one but the writing itself, and commits when memory has
// no room for more rows.
type stateFS struct{ vfs.FS }

// Create implements vfs.FS.
func (s stateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	if err != nil {
		time.Sleep(errorPause)
		return nil, err
	}
	return stateFile{f}, nil
}

type stateFile struct{ vfs.File }

// Write implements io.Writer.
func (f stateFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, unhurried(err)
}

// Sync implements vfs.File.
func (f stateFile) Sync() error { return unhurried(f.File.Sync()) }

// SyncData implements vfs.File.
func (f stateFile) SyncData() error { return unhurried(f.File.SyncData()) }

func unhurried(err error) error {
	if err != nil {
		time.Sleep(errorPause)
	}
	return err
}
