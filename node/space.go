package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"bsmtpd/config"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// room is how much space the data directory's file system has left for mail.
type room uint8

const (
	roomEnough room = iota
	roomLow         // new mail is refused for now; queues drain
	roomOut         // nothing is done but recording what is in flight
)

var roomNames = [...]string{"enough", "low", "out"}

// judgeRoom decides by the watermarks (C13). total inodes of 0: the file system
// does not count them. The words name what is short.
func judgeRoom(c config.LowSpace, disk vfs.DiskUsage, inodes, totalInodes uint64) (room, string) {
	free := mail.Size(disk.AvailBytes)
	bytes := func(mark mail.Size) string {
		return fmt.Sprintf("%s free of %s, the mark is %s", free, mail.Size(disk.TotalBytes), mark)
	}
	files := func(mark int64) string {
		return fmt.Sprintf("%d inodes free of %d, the mark is %d", inodes, totalInodes, mark)
	}
	count := totalInodes > 0
	switch {
	case free < c.HardBytes:
		return roomOut, bytes(c.HardBytes)
	case count && inodes < uint64(c.HardInodes):
		return roomOut, files(c.HardInodes)
	case free < c.SoftBytes:
		return roomLow, bytes(c.SoftBytes)
	case count && inodes < uint64(c.SoftInodes):
		return roomLow, files(c.SoftInodes)
	}
	return roomEnough, ""
}

// relieveEvery is the time between two calls of relieve. Without them a node that
// takes no mail in, and has none left, would write no log and so never cut it.
const relieveEvery = 10 * time.Second

// space watches the file system of the data directory.
type space struct {
	fs    host.FS
	dir   string
	log   *slog.Logger
	state prometheus.Gauge
	free  prometheus.Gauge

	changed func(room)   // told after each change
	relieve func()       // gives back what the log and the rows do not need; called now and then while space is short
	short   func() error // why nothing can be written just now, marks or not; nil: nobody knows

	relieved time.Time // when relieve was last called; for look alone

	mu    sync.Mutex // guards the rest
	conf  config.LowSpace
	room  room
	words string
}

func newSpace(fs host.FS, dir string, conf config.LowSpace, log *slog.Logger, reg *metric.Registry, changed func(room)) *space {
	return &space{fs: fs, dir: dir, conf: conf, log: log, changed: changed,
		state: reg.Gauge("space_state", "Room on the data directory's file system: 0 enough, 1 low (new mail refused), 2 out (not ready, pushes paused)."),
		free:  reg.Gauge("space_free_bytes", "Bytes free on the data directory's file system."),
	}
}

func (s *space) setConfig(c config.LowSpace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf = c
}

// run looks every now and then until ctx ends.
func (s *space) run(ctx context.Context) error {
	for {
		s.look()
		s.mu.Lock()
		every := s.conf.CheckEvery
		s.mu.Unlock()
		if host.Sleep(ctx, max(every, 100*time.Millisecond)) != nil {
			return nil
		}
	}
}

func (s *space) look() {
	disk, err := s.fs.GetDiskUsage(s.dir)
	var inodes, total uint64
	if err == nil {
		inodes, total, err = s.fs.InodesFree(s.dir)
	}
	if err != nil {
		s.log.Warn("cannot tell how much space is left; going on as before", "directory", s.dir, "error", err)
		return
	}
	s.free.Set(float64(disk.AvailBytes))
	s.mu.Lock()
	was := s.room
	s.room, s.words = judgeRoom(s.conf, disk, inodes, total)
	if s.short != nil {
		if err := s.short(); err != nil {
			s.room, s.words = roomOut, err.Error()
		}
	}
	now, words := s.room, s.words
	s.mu.Unlock()
	s.state.Set(float64(now))
	if now != roomEnough && s.relieve != nil && time.Since(s.relieved) > relieveEvery {
		s.relieved = time.Now()
		s.relieve()
	}
	if now == was {
		return
	}
	if now == roomEnough {
		s.log.Info("there is enough space again: mail is taken in", "directory", s.dir)
	} else {
		s.log.Error("space is short: new mail is refused", "directory", s.dir, "state", roomNames[now], "reason", words)
	}
	if s.changed != nil {
		s.changed(now)
	}
}

// admit says whether mail may be taken in: nil, or an error of Kind LowSpace
// (452) or Unavailable (421) with the reason.
func (s *space) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.room {
	case roomLow:
		return mail.Fail(mail.LowSpace, "the mail store is short of space: "+s.words)
	case roomOut:
		return mail.Fail(mail.Unavailable, "the mail store is out of space: "+s.words)
	}
	return nil
}
