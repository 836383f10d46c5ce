package cluster

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// inspect looks at the data directory before anything in it is changed, and
// refuses what cannot be gone on with; then it mends what a crash leaves behind.
// It gives the last entry of the log.
//
// Opening would change it: raft-wal writes over what it takes for a torn end, and
// pebble removes files that its list does not name. What is refused must still be
// there for whoever looks into it.
func (n *Node) inspect() (uint64, error) {
	dir := n.opts.Dir
	log, err := checkLog(n.host.FS, path.Join(dir, logDir))
	if err != nil {
		return 0, mail.Fail(mail.Broken, err.Error())
	}
	snaps := &snapshotStore{fs: n.host.FS, dir: path.Join(dir, snapshotDir)}
	metas, err := snaps.List()
	if err != nil {
		return 0, mail.Fail(mail.Broken, err.Error()+"; "+restore)
	}
	problems, harmless := log.problems(covered(metas))
	if len(problems) > 0 {
		return 0, mail.Fail(mail.Broken, strings.Join(problems, "; ")+"; mail that was accepted would be missing: "+restore)
	}
	for _, h := range harmless {
		n.log.Warn("a part of the log is damaged that is not needed any more; the disk is not sound", "what", h)
	}
	if n.identity.Ready {
		if log.mark != "" {
			n.log.Warn("the log is whole as far as can be told", "but", log.mark)
		}
		applied, err := peekApplied(n.host.FS, dir, stateLogger{n})
		if err != nil {
			return 0, &mail.Error{Kind: mail.Broken, Err: fmt.Errorf("%w; %s", err, restore)}
		}
		if err := continuity(dir, true, log.first(), log.last(), applied, metas); err != nil {
			return 0, err
		}
	}
	done, err := log.mend()
	for _, d := range done {
		n.log.Info("the log was mended after a crash", "what", d)
	}
	return log.last(), err
}

// restore is the advice where a part of a data directory is lost.
const restore = `restore the whole data directory from one backup, and do not start on it before; "bsmtpd spool verify" lists all that is wrong`

// covered is the entry up to which a snapshot promises the rows to be durable.
func covered(metas []*raft.SnapshotMeta) uint64 {
	if len(metas) == 0 {
		return 0
	}
	return metas[0].Index
}

// peekApplied reads how far the rows are, and changes nothing.
func peekApplied(files host.FS, dir string, log pebble.Logger) (uint64, error) {
	db, err := openState(files, dir, log, kv.Options{FS: files, ReadOnly: true, MustExist: true, CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		return 0, err
	}
	m, err := LoadMachine(db)
	if err = errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	return m.Applied(), nil
}

// openState opens the state database beside the caller: after an error that
// pebble cannot undo its logger ends the goroutine.
func openState(files host.FS, dir string, log pebble.Logger, o kv.Options) (*kv.Store, error) {
	var db *kv.Store
	err := errors.New("the state database could not be opened")
	done := make(chan struct{})
	o.Logger = log
	go func() {
		defer close(done)
		db, err = kv.Open(files.PathJoin(dir, stateDir), o)
	}()
	<-done
	return db, err
}

// continuity refuses a log and rows that cannot belong together: a part of the
// directory was lost or comes from another time. Going on would silently drop
// acknowledged mail.
func continuity(dir string, ready bool, first, last, applied uint64, metas []*raft.SnapshotMeta) error {
	broken := func(format string, args ...any) error {
		return mail.Fail(mail.Broken, fmt.Sprintf("data directory %s: ", dir)+fmt.Sprintf(format, args...)+
			"; a part of it was lost or restored from another time: restore all of it from one backup")
	}
	switch {
	case first > applied+1:
		return broken("the rows end at entry %d but the log begins at %d", applied, first)
	case last < applied:
		return broken("the log ends at entry %d but the rows hold entry %d", last, applied)
	case ready && last == 0:
		return broken("the log is empty")
	case first > 1 && covered(metas) < first-1:
		return broken("the log begins at entry %d and no snapshot covers what was before", first)
	case covered(metas) > applied:
		return broken("a snapshot promises the rows up to entry %d but they end at %d", metas[0].Index, applied)
	}
	return nil
}
