package cluster

import (
	"path"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stateFS is the file system of the state database. Where rows cannot be written,
// pebble tries again at once and says so each time: on a full disk thousands of
// times a second, and the log of that fills what is left. So failures take a
// while. Nobody waits for one but the writing itself, and commits when memory has
// no room for more rows.
//
// Where pebble could not try again, it waits until there is room: to open a file
// for reading, and to write the list of its files.
type stateFS struct {
	vfs.FS
	*patience
}

// lists reports a file in which pebble says which others count. It gives up, and
// the node with it, if it cannot write one.
func lists(name string) bool {
	name = path.Base(name)
	return strings.HasPrefix(name, "MANIFEST") || strings.HasPrefix(name, "marker.")
}

// Open implements vfs.FS.
func (s stateFS) Open(name string, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = s.until("open "+path.Base(name), func() error {
		f, err = s.FS.Open(name, opts...)
		return err
	})
	return f, err
}

// Create implements vfs.FS.
func (s stateFS) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	create := func() error {
		f, err = s.FS.Create(name, c)
		return err
	}
	if lists(name) {
		err = s.until("create "+path.Base(name), create)
	} else {
		err = create()
	}
	if err != nil {
		s.unhurried(err)
		return nil, err
	}
	return stateFile{f, s, lists(name)}, nil
}

type stateFile struct {
	vfs.File
	fs    stateFS
	lists bool
}

// Write implements io.Writer.
func (f stateFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if f.lists && passes(err) {
		err = f.fs.until("write the list of files", func() error {
			m, err := f.File.Write(p[n:])
			n += m
			return err
		})
	}
	return n, f.fs.unhurried(err)
}

// Sync implements vfs.File.
func (f stateFile) Sync() error { return f.fs.unhurried(f.File.Sync()) }

// SyncData implements vfs.File.
func (f stateFile) SyncData() error { return f.fs.unhurried(f.File.SyncData()) }

func (s stateFS) unhurried(err error) error {
	if err != nil {
		s.note(err)
		time.Sleep(errorPause)
	}
	return err
}
