package node

import (
	"log/slog"
	"strings"
	"testing"

	"bsmtpd/config"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestWatermarksNameWhatIsShort(t *testing.T) {
	c := config.LowSpace{SoftBytes: 1000, HardBytes: 100, SoftInodes: 20, HardInodes: 5}
	for _, tt := range []struct {
		bytes, inodes, total uint64
		want                 room
		words                string
	}{
		{5000, 100, 1000, roomEnough, ""},
		{1000, 100, 1000, roomEnough, ""},
		{999, 100, 1000, roomLow, "999B free"},
		{99, 100, 1000, roomOut, "99B free"},
		{5000, 19, 1000, roomLow, "19 inodes free"},
		{5000, 4, 1000, roomOut, "4 inodes free"},
		{5000, 0, 0, roomEnough, ""}, // btrfs and others count no inodes
		{999, 4, 1000, roomOut, "4 inodes"},
	} {
		got, words := judgeRoom(c, vfs.DiskUsage{AvailBytes: tt.bytes, TotalBytes: 1 << 20}, tt.inodes, tt.total)
		if got != tt.want || !strings.Contains(words, tt.words) {
			t.Errorf("%d bytes, %d inodes: %s %q, want %s %q", tt.bytes, tt.inodes, roomNames[got], words, roomNames[tt.want], tt.words)
		}
	}
}

func TestMailIsRefusedWhileSpaceIsShortAndTakenAgainAfter(t *testing.T) {
	mem := vfs.NewMem()
	var told []room
	s := newSpace(host.MadeFS(mem), "/", config.LowSpace{SoftBytes: 1000, HardBytes: 100}, slog.New(slog.DiscardHandler),
		metric.New(), func(r room) { told = append(told, r) })
	for _, step := range []struct {
		free uint64
		want mail.Kind
	}{{5000, mail.Other}, {500, mail.LowSpace}, {50, mail.Unavailable}, {2000, mail.Other}} {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: step.free, TotalBytes: 10_000})
		s.look()
		if err := s.admit(); mail.KindOf(err) != step.want || (err == nil) != (step.want == mail.Other) {
			t.Errorf("with %d bytes free: %v, want kind %s", step.free, err, step.want)
		}
	}
	if len(told) != 3 {
		t.Errorf("told of changes %v, want low, out, enough", told)
	}
}
