package cluster

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"sync"
	"time"

	"bsmtpd/host"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The mark says which entry of the log was synced last. The log alone cannot: a
// last batch whose checksum is wrong may be one that the power did not let be
// completed, of which nobody was told, or one that was acknowledged and damaged
// since. Also a newest segment that is gone looks like one that was never begun.
//
// It is written after each sync of the log, so it stands in the kernel's memory
// when the process dies and is exact then. It is synced markEvery later, so a power
// cut costs what was synced in that time; only where the disk also damages the end
// of the log in that same moment is the mark too late to tell.
//
//	8 bytes  number of this writing, big-endian
//	8 bytes  the entry
//	4 bytes  CRC-32C of the 16 bytes before
//
// The file has several places for that, each in a sector and a page of its own.
// While one is synced another is written, and a third is durable.
const (
	markName   = "synced"
	markPlaces = 3
	markStride = 4096
	markLen    = 20
	markEvery  = time.Second
)

// mark is the open file.
type mark struct {
	f    vfs.File
	wake chan struct{} // 1 deep: something was written
	fail func(error)

	mu    sync.Mutex // guards the rest, and writing, which nobody else waits for
	seq   uint64
	place int64
	entry uint64
}

// readMark gives the last entry that is known to have been synced; 0 if it is not
// known. wrong says what is wrong with the file.
func readMark(files host.FS, dir string) (entry uint64, wrong string, err error) {
	name := path.Join(dir, markName)
	data, err := host.ReadFile(files, name, markPlaces*markStride)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, name + " is missing: damage to the newest entries could not be seen", nil
	}
	if err != nil {
		return 0, "", err
	}
	_, entry, good := latestMark(data)
	if good == 0 {
		return 0, name + " is damaged: damage to the newest entries could not be seen", nil
	}
	return entry, "", nil
}

// latestMark gives what was written last, and in how many places something stands.
func latestMark(data []byte) (seq, entry uint64, good int) {
	for at := 0; at+markLen <= len(data); at += markStride {
		b := data[at : at+markLen]
		if binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
			continue
		}
		good++
		if n := binary.BigEndian.Uint64(b); n >= seq {
			seq, entry = n, binary.BigEndian.Uint64(b[8:])
		}
	}
	return seq, entry, good
}

// openMark opens the file for writing, and makes it anew where it says nothing.
func openMark(files host.FS, dir string, entry uint64, fail func(error)) (*mark, error) {
	name := path.Join(dir, markName)
	m := &mark{wake: make(chan struct{}, 1), fail: fail}
	data, err := host.ReadFile(files, name, markPlaces*markStride)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	seq, last, good := latestMark(data)
	m.seq = seq
	if good == 0 || last != entry || len(data) != markPlaces*markStride {
		data = make([]byte, markPlaces*markStride)
		m.seq++
		copy(data, encodeMark(m.seq, entry))
		if err := host.WriteFile(files, name, data); err != nil {
			return nil, err
		}
	}
	m.entry = entry
	for at := range int64(markPlaces) { // not over the one that counts
		if binary.BigEndian.Uint64(data[at*markStride:]) == m.seq {
			m.place = (at + 1) % markPlaces
		}
	}
	m.f, err = files.OpenReadWrite(name, writeCategory)
	return m, err
}

func encodeMark(seq, entry uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, seq)
	b = binary.BigEndian.AppendUint64(b, entry)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// note writes down that the log is synced up to an entry.
func (m *mark) note(entry uint64) {
	m.mu.Lock()
	m.seq++
	m.entry = entry
	_, err := m.f.WriteAt(encodeMark(m.seq, entry), m.place*markStride)
	m.mu.Unlock()
	if err != nil {
		m.fail(err)
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// lower is for a log whose end is about to be cut off: durable when it returns.
func (m *mark) lower(entry uint64) error {
	m.mu.Lock()
	was := m.entry
	m.mu.Unlock()
	if entry >= was {
		return nil
	}
	m.note(entry)
	return m.f.SyncData()
}

// run makes what was noted durable every now and then until stop is closed.
func (m *mark) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-m.wake:
		}
		later := time.NewTimer(markEvery)
		select {
		case <-stop:
			later.Stop()
			return
		case <-later.C:
		}
		m.mu.Lock()
		m.place = (m.place + 1) % markPlaces
		m.mu.Unlock()
		if err := m.f.SyncData(); err != nil {
			m.fail(err)
			return
		}
	}
}

// Close implements io.Closer.
func (m *mark) Close() error { return m.f.Close() }

var _ io.Closer = (*mark)(nil)
