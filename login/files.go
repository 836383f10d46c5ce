package login

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
)

const (
	fileSuffix   = ".login"
	reasonSuffix = ".reason"
	badDir       = "bad"
	dirMode      = 0o750
	maxNameBytes = 200  // of a login file
	maxBad       = 1000 // files kept in bad/, each with its reason
	fileTimeout  = 10 * time.Second
)

// progress is how far the one file got whose events could not all be committed.
// It is only in memory: after a crash the file is told from its beginning, and
// an event that is told twice does no harm (directory.Event.Apply).
type progress struct {
	name string
	sum  [sha256.Size]byte
	done int // events
}

// watchFiles reads dropped files until ctx ends.
func (s *Server) watchFiles(ctx context.Context) error {
	changed, stop, err := s.host.FS.Watch(s.dir)
	if err != nil {
		s.log.Warn("login directory is not watched, only looked at from time to time",
			"dir", s.dir, "every", s.cfg.Files.Rescan, "err", err)
		changed = nil
	} else {
		defer stop.Close()
	}
	var p progress
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changed:
			if !ok {
				changed = nil
				continue
			}
		case <-timer.C:
		}
		s.readFiles(ctx, &p)
		timer.Reset(s.cfg.Files.Rescan)
	}
}

// readFiles takes the files in order of name. One that cannot be committed or
// removed stops the pass: those behind it must not overtake it.
func (s *Server) readFiles(ctx context.Context, p *progress) {
	names, err := s.host.FS.List(s.dir)
	if err != nil {
		s.log.Error("login directory cannot be read", "dir", s.dir, "err", err)
		return
	}
	slices.Sort(names)
	gone := false
	for _, name := range names {
		if !strings.HasSuffix(name, fileSuffix) || strings.HasPrefix(name, ".") {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if err := s.readFile(ctx, p, name); err != nil {
			s.metrics.files.WithLabelValues("failed").Inc()
			s.log.Warn("login file will be tried again", "file", name, "err", err)
			break
		}
		gone = true
	}
	if !gone {
		return
	}
	if err := host.SyncDir(s.host.FS, s.dir); err != nil {
		s.log.Warn("login directory not synced", "dir", s.dir, "err", err)
	}
}

// readFile tells the events of one file and removes it, or moves it to bad/. An
// error means: later again.
func (s *Server) readFile(ctx context.Context, p *progress, name string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	path := s.host.FS.PathJoin(s.dir, name)
	data, err := s.content(path, name)
	var bad *badFile
	switch {
	case errors.As(err, &bad):
		return s.setAside(name, bad.reason)
	case errors.Is(err, fs.ErrNotExist):
		return nil // somebody took it back
	case err != nil:
		return err
	}
	events, err := parseFile(data, s.rules.Load().stripRealm)
	if err != nil {
		return s.setAside(name, err.Error())
	}
	sum := sha256.Sum256(data)
	if p.name != name || p.sum != sum {
		*p = progress{name: name, sum: sum}
	}
	for p.done < len(events) {
		e := events[p.done]
		err := s.tellFile(ctx, e.event, fmt.Sprintf("%s:%d", name, e.line))
		if permanent(err) {
			return s.setAside(name, fmt.Sprintf("line %d: %v; the lines before it were applied", e.line, err))
		}
		if err != nil {
			return err
		}
		p.done++
	}
	if err := s.host.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("all its events are recorded, but it cannot be removed: %w", err)
	}
	*p = progress{}
	s.metrics.files.WithLabelValues("done").Inc()
	return nil
}

func (s *Server) tellFile(ctx context.Context, e directory.Event, from string) error {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	_, err := s.tell(ctx, e, from)
	return err
}

// badFile says why a file can never be read.
type badFile struct{ reason string }

func (b *badFile) Error() string { return b.reason }

func (s *Server) content(path, name string) ([]byte, error) {
	if len(name) > maxNameBytes {
		return nil, &badFile{fmt.Sprintf("the name is longer than %d bytes", maxNameBytes)}
	}
	data, err := host.ReadPlain(s.host.FS, path, maxFileBytes)
	var large *host.LimitError
	switch {
	case errors.Is(err, host.ErrNotPlain):
		return nil, &badFile{"not a regular file; links are not followed"}
	case errors.Is(err, fs.ErrPermission):
		return nil, &badFile{"the server may not read it; look at its owner and mode"}
	case errors.As(err, &large):
		return nil, &badFile{fmt.Sprintf("larger than %d bytes; make several files", maxFileBytes)}
	}
	return data, err
}

// setAside moves a file to bad/ with the reason beside it. The reason is written
// first: a crash in between leaves the file where it is found again.
func (s *Server) setAside(name, reason string) error {
	disk := s.host.FS
	bad := disk.PathJoin(s.dir, badDir)
	kept := keptName(name)
	if err := disk.MkdirAll(bad, dirMode); err != nil {
		return err
	}
	words := fmt.Sprintf("%s: %s\nno event of this file was applied unless the reason says so; correct it and move it back\n", name, reason)
	if err := host.WriteFile(disk, disk.PathJoin(bad, kept+reasonSuffix), []byte(words)); err != nil {
		return fmt.Errorf("bad (%s), and its reason cannot be written: %w", reason, err)
	}
	if err := disk.Rename(disk.PathJoin(s.dir, name), disk.PathJoin(bad, kept)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bad (%s), and it cannot be moved to %s: %w", reason, bad, err)
	}
	if err := host.SyncDir(disk, bad); err != nil {
		return err
	}
	s.metrics.files.WithLabelValues("bad").Inc()
	s.log.Warn("login file set aside", "file", name, "to", disk.PathJoin(bad, kept), "reason", reason)
	s.tidyBad(bad)
	return nil
}

// keptName is a name for bad/ that leaves room for its reason's.
func keptName(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxNameBytes/2] + "-" + hex.EncodeToString(sum[:8]) + fileSuffix
}

// tidyBad removes the oldest files beyond maxBad.
func (s *Server) tidyBad(bad string) {
	disk := s.host.FS
	names, err := disk.List(bad)
	if err != nil {
		s.log.Warn("bad login files cannot be counted", "dir", bad, "err", err)
		return
	}
	type pair struct {
		name string
		at   time.Time
	}
	var pairs []pair
	for _, n := range names {
		base, isReason := strings.CutSuffix(n, reasonSuffix)
		if !isReason {
			continue // every file has its reason
		}
		if info, err := disk.Stat(disk.PathJoin(bad, n)); err == nil {
			pairs = append(pairs, pair{base, info.ModTime()})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	for _, p := range pairs[:max(0, len(pairs)-maxBad)] {
		for _, n := range []string{p.name, p.name + reasonSuffix} {
			if err := disk.RemoveAll(disk.PathJoin(bad, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.log.Warn("old bad login file cannot be removed", "file", n, "err", err)
			}
		}
	}
}
