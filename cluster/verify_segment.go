package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"bsmtpd/host"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// The form of raft-wal's segments: a header, then frames. Entries that were
// written and synced together are a batch: frames of entries, at the end of the
// segment one with the places of all of them, and a commit frame with the checksum
// of the batch (that of the first batch is over the file's header, too).
//
//	1 byte   type, 0 where nothing was written yet
//	3 bytes  0
//	4 bytes  length of what follows; in a commit frame the CRC-32C, nothing follows
//	         what follows, with zeros up to a multiple of 8 bytes
const (
	segmentHeaderLen = 32
	frameLen         = 8
	maxFrame         = segment.MaxEntrySize

	lookBytes = 256 << 10 // of a segment that are read at once
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entries is a range of them, both ends included.
type entries struct{ first, last uint64 }

func (e entries) String() string {
	if e.first == e.last {
		return fmt.Sprintf("entry %d", e.first)
	}
	return fmt.Sprintf("entries %d to %d", e.first, e.last)
}

// segmentCheck is what a look at one segment found. raft-wal by itself compares
// no checksum but that of the last batch, and takes the first frame that it cannot
// understand for the place where the power failed: whatever stands behind is
// overwritten. A batch is only written when the one before is synced, so that is
// right where no good batch follows; everything else is damage.
type segmentCheck struct {
	info types.SegmentInfo
	name string // of the file

	last  uint64 // the last entry of the last good batch; 0: there is none
	begin int64  // where that batch begins; 0: it is the first, and the header belongs to it
	end   int64  // where that batch ends
	index int64  // where the places stand in that batch; 0: the segment is not full
	rest  int64  // where the last byte behind that is not zero; at most end: nothing is there

	bad  []entries // that cannot be read or are not what was written, with good ones behind
	fail string    // why the segment as a whole cannot be used
	torn bool      // a frame in the middle cannot be understood: raft-wal stops there
}

// checkSegment looks at all of a segment's batches.
func checkSegment(files host.FS, dir string, info types.SegmentInfo) segmentCheck {
	s := segmentCheck{info: info, name: segment.FileName(info)}
	f, err := files.Open(path.Join(dir, s.name))
	if errors.Is(err, fs.ErrNotExist) {
		if s.sealed() {
			s.fail = "it is missing"
		}
		return s // raft-wal makes the newest segment after its meta file
	}
	if err == nil {
		defer f.Close()
		err = s.read(f)
	}
	if err != nil {
		s.fail = "it cannot be read: " + err.Error()
		return s
	}
	if s.sealed() {
		s.checkSealed()
	}
	return s
}

func (s *segmentCheck) sealed() bool { return !s.info.SealTime.IsZero() }

// next is the entry that should come after the last one.
func (s *segmentCheck) next() uint64 {
	if s.last == 0 {
		return s.info.BaseIndex
	}
	return s.last + 1
}

func (s *segmentCheck) checkSealed() {
	if s.last < s.info.MaxIndex {
		s.bad = append(s.bad, entries{s.next(), s.info.MaxIndex})
	} else if len(s.bad) == 0 && s.info.IndexStart != uint64(s.index) {
		s.fail = "the places of its entries are not where the log's meta file says"
	}
}

func (s *segmentCheck) read(file io.ReaderAt) error {
	var head [segmentHeaderLen]byte
	if _, err := file.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return err
	}
	f := &window{f: file, buf: make([]byte, lookBytes)}
	for at, first := int64(segmentHeaderLen), true; ; first = false {
		b, err := readBatch(f, at, s.next(), first, head[:])
		if err != nil {
			return err
		}
		if !b.good {
			if b.nothing {
				break
			}
			if b, err = s.resume(f, at, b); err != nil {
				return err
			}
			if !b.good {
				break
			}
			s.bad = append(s.bad, entries{s.next(), max(b.first-1, s.next())})
		}
		s.begin = s.end
		s.last, s.end, s.index, at = b.last, b.end, b.index, b.end
	}
	if want := wantHeader(s.info); s.last != 0 && !bytes.Equal(head[:], want) {
		s.fail = "its header is damaged, or it belongs to another log"
	}
	if s.sealed() {
		return nil
	}
	var err error
	s.rest, err = lastByte(f, s.end)
	return err
}

func wantHeader(info types.SegmentInfo) []byte {
	const magic = 0x58eb6b0d
	b := binary.LittleEndian.AppendUint64(nil, magic)
	b = binary.LittleEndian.AppendUint64(b, info.BaseIndex)
	b = binary.LittleEndian.AppendUint64(b, info.ID)
	return binary.LittleEndian.AppendUint64(b, info.Codec)
}

// batch is a try to read one.
type batch struct {
	good        bool
	nothing     bool // zeros, or the end of the file
	whole       bool // the frames can be understood, but the checksum is another
	first, last uint64
	end         int64 // behind it; where not good, where reading ended
	index       int64
}

// readBatch reads the batch at an offset, whose first entry is to be want; 0:
// whatever it is.
func readBatch(f *window, at int64, want uint64, first bool, head []byte) (batch, error) {
	b := batch{end: at, first: want}
	sum := uint32(0)
	if first {
		sum = crc32.Update(0, castagnoli, head)
	}
	for {
		frame, err := f.bytes(b.end, frameLen)
		if err != nil {
			return b, err
		}
		if len(frame) < frameLen || [frameLen]byte(frame) == [frameLen]byte{} {
			b.nothing = b.end == at
			return b, nil
		}
		n := int64(binary.LittleEndian.Uint32(frame[4:]))
		kind, strange := frame[0], frame[1]|frame[2]|frame[3] != 0
		switch {
		case kind == segment.FrameCommit && !strange:
			b.end += frameLen
			b.whole = b.last != 0
			b.good = b.whole && uint32(n) == sum
			return b, nil
		case kind != segment.FrameEntry && kind != segment.FrameIndex, strange, n > maxFrame:
			return b, nil
		}
		sum = crc32.Update(sum, castagnoli, frame)
		if kind == segment.FrameIndex {
			b.index = b.end + frameLen
		} else {
			text, err := f.bytes(b.end+frameLen, int(min(n, binary.MaxVarintLen64)))
			if err != nil {
				return b, err
			}
			index, used := binary.Uvarint(text)
			if used <= 0 || want != 0 && index != want {
				return b, nil
			}
			if b.last == 0 {
				b.first = index
			}
			b.last, want = index, index+1
		}
		padded := (n + frameLen - 1) / frameLen * frameLen
		if n, err := f.sum(b.end+frameLen, padded, &sum); err != nil || n < padded {
			return b, err
		}
		b.end += frameLen + padded
	}
}

// window is a piece of a file in memory, which moves along with the reading.
type window struct {
	f    io.ReaderAt
	buf  []byte
	at   int64
	have int
}

// bytes gives at most n bytes from an offset, at most lookBytes, fewer at the end
// of the file. They are good until the next call.
func (w *window) bytes(at int64, n int) ([]byte, error) {
	if at < w.at || at+int64(n) > w.at+int64(w.have) {
		have, err := w.f.ReadAt(w.buf, at)
		if err != nil && err != io.EOF {
			return nil, err
		}
		w.at, w.have = at, have
	}
	b := w.buf[at-w.at : w.have]
	return b[:min(n, len(b))], nil
}

// sum adds n bytes to a checksum and says how many there were.
func (w *window) sum(at, n int64, sum *uint32) (int64, error) {
	var done int64
	for done < n {
		b, err := w.bytes(at+done, int(min(n-done, lookBytes)))
		if err != nil || len(b) == 0 {
			return done, err
		}
		*sum = crc32.Update(*sum, castagnoli, b)
		done += int64(len(b))
	}
	return done, nil
}

// resume looks for a good batch behind a bad one at an offset: one is only begun
// when all before it are synced, so it means that something was damaged later. A
// stranger's message could hold what looks like a batch with right numbers and
// checksum; with it a torn end would be refused, which is the safe side.
func (s *segmentCheck) resume(f *window, at int64, bad batch) (batch, error) {
	acceptable := func(b batch) bool { return b.good && b.first >= s.next() }
	// The frames are whole, or it is the commit frame that cannot be understood.
	for _, next := range []int64{bad.end, bad.end + frameLen} {
		if b, err := readBatch(f, next, 0, false, nil); err != nil || acceptable(b) {
			s.torn = s.torn || !bad.whole
			return b, err
		}
	}
	for ; ; at += frameLen {
		frame, err := f.bytes(at, frameLen)
		if err != nil || len(frame) < frameLen {
			return batch{}, err
		}
		if [4]byte(frame) != [4]byte{segment.FrameCommit} {
			continue
		}
		if b, err := readBatch(f, at+frameLen, 0, false, nil); err != nil || acceptable(b) {
			s.torn = true
			return b, err
		}
	}
}

// lastByte is where the last byte that is not zero ends, from an offset on.
func lastByte(f *window, from int64) (int64, error) {
	last := from
	for at := from; ; {
		b, err := f.bytes(at, lookBytes)
		if err != nil || len(b) == 0 {
			return last, err
		}
		if used := len(bytes.TrimRight(b, "\x00")); used > 0 {
			last = at + int64(used)
		}
		at += int64(len(b))
	}
}
