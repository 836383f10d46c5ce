package kv

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Damage says that the database's files do not hold what was written to them: a
// block whose checksum is wrong, a file that is gone. Whoever asked for the row
// can go on with others; what cannot be read must not be taken for "not there".
type Damage struct {
	File string // empty: it is not known which
	Err  error
}

var _ error = (*Damage)(nil)

// Error names the file.
func (d *Damage) Error() string {
	if d.File == "" {
		return fmt.Sprintf("a file of the state database is damaged: %s", d.Err)
	}
	return fmt.Sprintf("file %s of the state database is damaged: %s", d.File, d.Err)
}

// Unwrap gives pebble's error.
func (d *Damage) Unwrap() error { return d.Err }

// Damaged marks the error as mail.Broken: see mail.KindOf.
func (d *Damage) Damaged() {}

// IsDamage reports whether a read failed because of a damaged file.
func IsDamage(err error) bool {
	var d *Damage
	return errors.As(err, &d)
}

// told makes Damage of pebble's errors about damaged files and leaves others
// alone.
func told(err error) error {
	if err == nil || IsDamage(err) || !pebble.IsCorruptionError(err) {
		return err
	}
	d := &Damage{Err: err}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		d.File, d.Err = info.Path, info.Details
	}
	return d
}

// hear tells of damage that pebble itself does not tell of: in a large value.
func (s *Store) hear(err error) {
	var d *Damage
	if s.damaged != nil && errors.As(err, &d) && d.File == "" {
		s.damaged(d)
	}
}

// caught turns a panic of pebble's about a file of large values that is missing
// or unreadable as a whole into an error: pebble 2.1.7 has no words for that case
// (fileCacheHandle.findOrCreateBlob reports it without saying of which file). Call
// it deferred.
func caught(err *error) {
	p := recover()
	if p == nil {
		return
	}
	if text, ok := p.(string); ok && strings.HasPrefix(text, "unknown metadata type") {
		*err = &Damage{Err: errors.New("a file of large values is missing or cannot be opened")}
		return
	}
	panic(p)
}

// leaked turns pebble's complaint about what caught left open into an error. Call
// it deferred.
func leaked(err *error) {
	p := recover()
	if p == nil {
		return
	}
	if text, ok := p.(string); ok && strings.HasPrefix(text, "element has outstanding references") {
		*err = errors.New("the state database was closed after a file of large values could not be opened")
		return
	}
	panic(p)
}

// whole looks whether the files of large values are there with their sizes, as
// pebble by itself does for its other files.
func whole(db *pebble.DB, fs vfs.FS, dir string) error {
	version := db.DebugCurrentVersion()
	for f := range version.BlobFiles.All() {
		name := fs.PathJoin(dir, fmt.Sprintf("%s.blob", f.Physical.FileNum))
		info, err := fs.Stat(name)
		if err != nil {
			return &Damage{File: name, Err: err}
		}
		if uint64(info.Size()) != f.Physical.Size {
			return &Damage{File: name, Err: fmt.Errorf("it has %d bytes instead of %d", info.Size(), f.Physical.Size)}
		}
	}
	return nil
}

// CheckFiles reads every block of rows in the database and compares its checksum.
// Large values are only read where somebody asks for them.
func (s *Store) CheckFiles() (err error) {
	defer caught(&err)
	return told(s.db.CheckLevels(nil))
}

// listener tells of damaged files. By itself pebble would end the process at the
// first bad block, also one that only a reader of one message met.
func listener(o Options) *pebble.EventListener {
	l := &pebble.EventListener{DataCorruption: func(info pebble.DataCorruptionInfo) {
		if o.Damaged != nil {
			o.Damaged(&Damage{File: info.Path, Err: info.Details})
		}
	}}
	if o.Logger != nil {
		l.BackgroundError = func(err error) {
			if !pebble.IsCorruptionError(err) { // else it was told above
				o.Logger.Errorf("background error: %s", err)
			}
		}
	}
	return l
}
