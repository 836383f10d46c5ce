package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/host"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// shelf is a log of small segments on a disk in memory.
type shelf struct {
	t      *testing.T
	fs     *vfs.MemFS
	w      *wal.WAL
	synced uint64 // the last entry that was acknowledged
	mark   *mark
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, fs: vfs.NewCrashableMem()}
	s.fs.MkdirAll("log", 0o700)
	s.open()
	return s
}

func (s *shelf) files() host.FS { return host.MadeFS(s.fs) }

func (s *shelf) open() {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) tryOpen() (err error) {
	log, err := checkLog(s.files(), "log")
	if err != nil {
		return err
	}
	if problems, _ := log.problems(0); len(problems) > 0 {
		return fmt.Errorf("%s", strings.Join(problems, "; "))
	}
	if _, err := log.mend(); err != nil {
		return err
	}
	if s.mark, err = openMark(s.files(), "log", log.last(), func(err error) { s.t.Error(err) }); err != nil {
		return err
	}
	node := &Node{}
	s.w, err = wal.Open("log", wal.WithSegmentFiler(segment.NewFiler("log", walFS{s.files(), nil})), wal.WithMetaStore(&metaFile{fs: s.files(), wait: &node.patience}),
		wal.WithSegmentSize(32<<10), wal.WithLogger(raftLogger(slog.New(slog.DiscardHandler))))
	if err == nil {
		if last, _ := s.w.LastIndex(); last != log.last() {
			err = fmt.Errorf("raft-wal ends with entry %d, the check with %d", last, log.last())
		}
	}
	return err
}

func content(index uint64) []byte {
	rng := rand.New(rand.NewPCG(index, 1))
	return bytes.Repeat([]byte{byte(index)}, rng.IntN(3000))
}

// add stores n entries as one batch.
func (s *shelf) add(n int) {
	s.t.Helper()
	var logs []*raft.Log
	for range n {
		s.synced++
		logs = append(logs, &raft.Log{Index: s.synced, Term: 2, Data: content(s.synced)})
	}
	if err := s.w.StoreLogs(logs); err != nil {
		s.t.Fatal(err)
	}
	s.mark.note(s.synced)
}

// fill stores some hundred entries, in several segments.
func (s *shelf) fill(rng *rand.Rand) {
	for s.synced < 150 {
		s.add(1 + rng.IntN(4))
	}
}

// crash is the disk as it is now, without what raft-wal does in the background
// from here on.
func (s *shelf) crash() *shelf {
	return &shelf{t: s.t, fs: s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}), synced: s.synced}
}

func (s *shelf) segments() []string {
	names, _ := s.fs.List("log")
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, walSuffix) {
			out = append(out, path.Join("log", n))
		}
	}
	slices.Sort(out) // a disk in memory gives them in any order
	return out
}

func (s *shelf) read(name string) []byte {
	data, err := host.ReadFile(s.fs, name, 1<<30)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *shelf) write(name string, data []byte) {
	if err := host.WriteFile(s.fs, name, data); err != nil {
		s.t.Fatal(err)
	}
}

// whole says what of the acknowledged entries is missing or changed.
func (s *shelf) whole() error {
	last, err := s.w.LastIndex()
	if err != nil || last < s.synced {
		return fmt.Errorf("the log ends with entry %d of %d: %v", last, s.synced, err)
	}
	for i := uint64(1); i <= s.synced; i++ {
		var l raft.Log
		if err := s.w.GetLog(i, &l); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if !bytes.Equal(l.Data, content(i)) {
			return fmt.Errorf("entry %d has changed", i)
		}
	}
	return nil
}

// Whatever is done to the segments of a log: it is refused, or it still has every
// entry that was synced.
func TestADamagedLogIsRefusedOrWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	s := newShelf(t)
	s.fill(rng)
	refused, torn := 0, 0
	for i := range 400 {
		v := s.crash()
		files := v.segments()
		name := files[rng.IntN(len(files))]
		if i%3 == 0 {
			name = files[len(files)-1]
		}
		data := v.read(name)
		used := len(bytes.TrimRight(data, "\x00"))
		if used == 0 {
			continue
		}
		at := rng.IntN(used)
		if i%4 == 0 {
			at = used - 1 - rng.IntN(min(used, 64))
		}
		how := []string{"a bit", "a hole", "the end", "zeros to the end", "the whole file"}[rng.IntN(5)]
		switch how {
		case "a bit":
			data[at] ^= 1 << rng.IntN(8)
		case "a hole":
			clear(data[at:min(len(data), at+512)])
		case "the end":
			data = data[:at]
		case "zeros to the end":
			clear(data[at:])
		}
		v.write(name, data)
		if how == "the whole file" {
			v.fs.Remove(name)
		}
		if err := v.tryOpen(); err != nil {
			refused++
			continue
		}
		torn++
		if err := v.whole(); err != nil {
			t.Fatalf("damage %d: %s of %s at %d of %d: %v", i, how, name, at, used, err)
		}
	}
	if refused < 300 {
		t.Errorf("%d logs were refused, %d were whole", refused, torn)
	}
}

// Without the mark, which a power cut may leave behind the log, a bad batch with a
// good one behind it is no torn end.
func TestABadBatchBeforeAGoodOneIsNoTornEnd(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	s := newShelf(t)
	s.add(3)
	before := len(bytes.TrimRight(s.read(s.segments()[0]), "\x00"))
	s.add(2)
	bad := len(bytes.TrimRight(s.read(s.segments()[0]), "\x00"))
	s.add(1)
	for i := range 300 {
		v := s.crash()
		v.fs.Remove("log/" + markName)
		name := v.segments()[0]
		data := v.read(name)
		at := before + rng.IntN(bad-before)
		if i < bad-before && i < 40 {
			at = bad - 1 - i // the commit frame, too
		}
		was := data[at]
		if data[at] ^= 1 << rng.IntN(8); i%2 == 0 {
			data[at] = ^was
		}
		v.write(name, data)
		if err := v.tryOpen(); err == nil {
			t.Fatalf("a changed byte at %d, between %d and %d, is not seen", at, before, bad)
		} else if !strings.Contains(err.Error(), "entries 4 to 5") && !strings.Contains(err.Error(), "entry 5") {
			t.Fatalf("a changed byte at %d: %v", at, err)
		}
	}
}

// A write that the power did not let be completed is no damage, wherever it ends,
// and the log goes on from there.
func TestATornEndIsClearedAndTheLogGoesOn(t *testing.T) {
	s := newShelf(t)
	s.add(3)
	name := s.segments()[0]
	before := len(bytes.TrimRight(s.read(name), "\x00"))
	whole := s.crash()
	s.add(2)
	after := s.read(name)
	for at := before; at < len(bytes.TrimRight(after, "\x00")); at += 97 {
		for _, middle := range []bool{false, true} {
			v := &shelf{t: t, fs: whole.fs.CrashClone(vfs.CrashCloneCfg{}), synced: 3}
			data := bytes.Clone(after)
			if middle { // the blocks came to the disk in another order
				clear(data[before:at])
			} else {
				clear(data[at:])
			}
			v.write(name, data)
			v.open()
			if at > before {
				if err := v.whole(); err != nil {
					t.Fatal(err)
				}
				if v.synced, _ = v.w.LastIndex(); v.synced != 3 {
					t.Fatalf("cut at %d: the log ends with entry %d", at, v.synced)
				}
			} else if v.synced, _ = v.w.LastIndex(); v.synced != 3 && !middle {
				t.Fatalf("the log ends with entry %d", v.synced)
			}
			v.add(1)
			v = v.crash()
			v.open()
			if err := v.whole(); err != nil {
				t.Fatalf("after a cut at %d: %v", at, err)
			}
		}
	}
}

// A process is killed before its fsync, and the next one reads from the kernel's
// memory what is not on the disk. It applies that and notes it as synced; when the
// power fails then, the log must not be shorter than the note.
func TestWhatAKilledProcessDidNotSyncIsSyncedBeforeItIsBelieved(t *testing.T) {
	s := newShelf(t)
	s.add(3)
	name := s.segments()[0]
	before := len(bytes.TrimRight(s.read(name), "\x00"))
	killed := s.crash()
	s.add(2)
	after := bytes.TrimRight(s.read(name), "\x00")
	f, err := killed.fs.OpenReadWrite(name, writeCategory)
	if err == nil {
		_, err = f.WriteAt(after[before:], int64(before))
	}
	if err != nil {
		t.Fatal(err)
	}
	killed.open()
	if killed.synced, _ = killed.w.LastIndex(); killed.synced != 5 {
		t.Fatalf("the log ends with entry %d", killed.synced)
	}
	dark := &shelf{t: t, fs: killed.fs.CrashClone(vfs.CrashCloneCfg{}), synced: 5}
	dark.open()
	if err := dark.whole(); err != nil {
		t.Error(err)
	}
}

// A segment that was full when the process died takes no more; the next is begun.
func TestALogGoesOnAfterASegmentWasFull(t *testing.T) {
	s := newShelf(t)
	meta := s.read("log/" + metaFileName)
	for len(s.segments()) == 1 {
		s.add(1)
		info := s.first()
		for checkSegment(s.files(), "log", info).index != 0 && len(s.segments()) == 1 {
			time.Sleep(time.Millisecond) // raft-wal begins the next in the background
		}
	}
	v := s.crash()
	v.write("log/"+metaFileName, meta)      // as it was before the end was noted
	for _, name := range v.segments()[1:] { // none, where its name was not on the disk yet
		v.fs.Remove(name)
	}
	v.open()
	for range 50 {
		v.add(1)
	}
	if err := v.whole(); err != nil {
		t.Error(err)
	}
}

// first is the first segment as it was begun.
func (s *shelf) first() types.SegmentInfo {
	m := metaFile{fs: s.files()}
	state, err := m.Load("log")
	if err != nil {
		s.t.Fatal(err)
	}
	info := state.Segments[0]
	info.SealTime = time.Time{}
	return info
}

func TestTheMarkTellsWhatWasSyncedLast(t *testing.T) {
	s := newShelf(t)
	for i := range 10 {
		s.add(1)
		if n, wrong, err := readMark(s.files(), "log"); n != s.synced || wrong != "" || err != nil {
			t.Fatalf("the mark says %d after %d: %q, %v", n, s.synced, wrong, err)
		}
		if i == 4 {
			s = s.crash()
			s.open()
		}
	}
	if err := s.mark.lower(4); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := readMark(s.files(), "log"); n != 4 {
		t.Errorf("the mark says %d after it was lowered to 4", n)
	}
	data := s.read("log/" + markName)
	for at := 0; at < len(data); at += markStride {
		data[at] ^= 1
	}
	s.write("log/"+markName, data)
	if n, wrong, err := readMark(s.files(), "log"); n != 0 || wrong == "" || err != nil {
		t.Errorf("a damaged mark says %d, %q, %v", n, wrong, err)
	}
}

func TestADamagedMetaFileIsSeen(t *testing.T) {
	s := newShelf(t)
	s.fill(rand.New(rand.NewPCG(15, 16)))
	meta := s.read("log/" + metaFileName)
	for at := range meta {
		v := s.crash()
		data := bytes.Clone(meta)
		data[at] ^= 1 << (at % 8)
		v.write("log/"+metaFileName, data)
		if err := v.tryOpen(); err == nil {
			t.Fatalf("a changed bit in byte %d of %d is not seen", at, len(meta))
		}
	}
}
