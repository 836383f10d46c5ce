package cluster

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"bsmtpd/host"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// logCheck is what a look at the whole log found.
type logCheck struct {
	fs       host.FS
	dir      string
	meta     walMeta
	segments []segmentCheck
	synced   uint64 // the last entry that is known to have been synced; 0: it is not known
	mark     string // what is wrong with the file that says so; empty: nothing
}

// first is the first entry of the log, or 0.
func (l *logCheck) first() uint64 {
	if l.last() == 0 {
		return 0
	}
	return l.segments[0].info.MinIndex
}

// last is the last entry of the log, or 0.
func (l *logCheck) last() uint64 {
	for _, s := range slices.Backward(l.segments) {
		if s.sealed() {
			return s.info.MaxIndex
		}
		if s.last != 0 {
			return s.last
		}
	}
	return 0
}

// tail is the segment that is written to, or nil.
func (l *logCheck) tail() *segmentCheck {
	if n := len(l.segments); n > 0 && !l.segments[n-1].sealed() {
		return &l.segments[n-1]
	}
	return nil
}

// checkLog looks at every byte of the log in dir. It changes nothing.
func checkLog(files host.FS, dir string) (*logCheck, error) {
	l := &logCheck{fs: files, dir: dir}
	m := metaFile{fs: files}
	if _, err := m.Load(dir); err != nil {
		return nil, err
	}
	l.meta = m.meta
	for i, info := range l.meta.State.Segments {
		if info.SealTime.IsZero() && i+1 < len(l.meta.State.Segments) {
			return nil, fmt.Errorf("%s is damaged: segment %d is not ended and not the last", m.name, info.ID)
		}
		l.segments = append(l.segments, checkSegment(files, dir, info))
	}
	var err error
	l.synced, l.mark, err = readMark(files, dir)
	return l, err
}

// problems are the reasons not to go on with this log. Everything up to an entry
// stands in the rows for sure, and may be damaged here; harmless says so then.
func (l *logCheck) problems(covered uint64) (problems, harmless []string) {
	for i, s := range l.segments {
		name := path.Join(l.dir, s.name)
		if s.fail != "" {
			problems = append(problems, fmt.Sprintf("%s: %s", name, s.fail))
			continue
		}
		if i > 0 && l.segments[i-1].info.MaxIndex+1 != s.info.BaseIndex {
			problems = append(problems, fmt.Sprintf("%s begins with entry %d, but the segment before ends with entry %d",
				name, s.info.BaseIndex, l.segments[i-1].info.MaxIndex))
		}
		for _, bad := range s.bad {
			text := fmt.Sprintf("%s: %s cannot be read or are not what was written, and good entries follow", name, bad)
			switch {
			case bad.last < s.info.MinIndex, bad.last <= covered && (s.sealed() || !s.torn):
				harmless = append(harmless, text)
			default:
				problems = append(problems, text)
			}
		}
	}
	if last := l.last(); last < l.synced {
		problems = append(problems, fmt.Sprintf("the log in %s ends with entry %d, but entry %d was synced", l.dir, last, l.synced))
	}
	return problems, harmless
}

// mend makes a sound log ready for raft-wal, which leaves three things as the end
// of a process left them. What was written last may not be on the disk yet, and
// would be applied and noted as synced all the same: see again. What follows the last batch would be read as frames once new
// batches have been written over its beginning, so it is zeroed. And a segment
// that was full when its end was not yet noted takes no entry any more, so that
// the node would stop at the first: the end is noted and the next segment begun.
func (l *logCheck) mend() (done []string, err error) {
	t := l.tail()
	if t == nil {
		return nil, nil
	}
	if err := l.again(t); err != nil {
		return nil, fmt.Errorf("sync the end of %s: %w", path.Join(l.dir, t.name), err)
	}
	if t.rest > t.end {
		if err := l.zero(t); err != nil {
			return nil, fmt.Errorf("clear the torn end of %s: %w", path.Join(l.dir, t.name), err)
		}
		done = append(done, fmt.Sprintf("%s had %d bytes of a write that was never completed behind entry %d: cleared", t.name, t.rest-t.end, l.last()))
	}
	if t.index == 0 {
		return done, nil
	}
	state := l.meta.State
	state.Segments = slices.Clone(state.Segments)
	full := &state.Segments[len(state.Segments)-1]
	full.SealTime, full.MaxIndex, full.IndexStart = time.Now(), t.last, uint64(t.index)
	next := types.SegmentInfo{ID: state.NextSegmentID, BaseIndex: t.last + 1, MinIndex: t.last + 1,
		SizeLimit: full.SizeLimit, Codec: full.Codec, CreateTime: full.SealTime}
	state.NextSegmentID++
	state.Segments = append(state.Segments, next)
	m := metaFile{fs: l.fs, name: path.Join(l.dir, metaFileName), meta: l.meta}
	if err := m.CommitState(state); err != nil {
		return done, fmt.Errorf("note that segment %s of the log is full: %w", t.name, err)
	}
	return append(done, fmt.Sprintf("%s was full; %s is next", t.name, segment.FileName(next))), nil
}

// again makes the last batch and the names in the log's folder durable. The
// process may have been killed before its fsync. Or that failed, and now the kernel
// takes for clean what it could not write: a sync alone would do nothing, so the
// same bytes are written once more. One batch is enough, for the next is only
// written when that before it is synced.
func (l *logCheck) again(t *segmentCheck) error {
	if l.last() <= l.synced || t.last == 0 {
		return host.SyncDir(l.fs, l.dir)
	}
	f, err := l.fs.OpenReadWrite(path.Join(l.dir, t.name), writeCategory)
	if err != nil {
		return err
	}
	buf := make([]byte, lookBytes)
	for at := t.begin; at < t.end && err == nil; at += lookBytes {
		b := buf[:min(lookBytes, t.end-at)]
		if _, err = f.ReadAt(b, at); err == nil || err == io.EOF {
			_, err = f.WriteAt(b, at)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), host.SyncDir(l.fs, l.dir))
}

func (l *logCheck) zero(t *segmentCheck) error {
	f, err := l.fs.OpenReadWrite(path.Join(l.dir, t.name), writeCategory)
	if err != nil {
		return err
	}
	zeros := make([]byte, lookBytes)
	for at := t.end; at < t.rest && err == nil; at += lookBytes {
		_, err = f.WriteAt(zeros[:min(lookBytes, t.rest-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
