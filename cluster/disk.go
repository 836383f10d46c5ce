package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"bsmtpd/metric"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	entryCommands  prometheus.Histogram
	syncEntries    prometheus.Histogram
	syncSeconds    prometheus.Histogram
	applied        prometheus.Gauge
	snapshots      prometheus.Counter
	snapshotErrors prometheus.Counter
	badReads       prometheus.Counter
	clock          clockMetrics
	damaged        prometheus.Counter
}

func newMetrics(r *metric.Registry) metrics {
	return metrics{
		clock:          newClockMetrics(r),
		damaged:        r.Counter("spool_damaged_rows_total", "Rows met that do not decode. They were set aside or are passed over; somebody has to look at them."),
		entryCommands:  r.Sizes("log_entry_commands", "Commands that share one entry of the replicated log."),
		syncEntries:    r.Sizes("log_sync_entries", "Entries that share one fsync of the replicated log."),
		syncSeconds:    r.Seconds("log_sync_seconds", "Time to write and fsync entries of the replicated log."),
		applied:        r.Gauge("log_applied_index", "Index of the last entry of the replicated log applied to the rows."),
		snapshots:      r.Counter("log_snapshots_total", "Snapshots taken: rows flushed, log cut."),
		badReads:       r.Counter("state_damage_total", "Reads of the state database that met a damaged block or a lost file."),
		snapshotErrors: r.Counter("log_snapshot_errors_total", "Snapshots that failed; the log grows until one succeeds."),
	}
}

// syncedLog is the log on disk. An error while writing to it is never retried:
// after a failed fsync nobody knows what the disk holds, so the node stops.
type syncedLog struct {
	*wal.WAL
	node *Node
}

var _ raft.LogStore = (*syncedLog)(nil)

// StoreLog implements raft.LogStore.
func (l *syncedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore: durable when it returns.
func (l *syncedLog) StoreLogs(logs []*raft.Log) error {
	if err := l.node.Failed(); err != nil {
		return err
	}
	began := time.Now()
	if err := l.WAL.StoreLogs(logs); err != nil {
		l.node.fail(fmt.Errorf("write the log: %w", err))
		return err
	}
	l.node.mark.note(logs[len(logs)-1].Index)
	l.node.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	l.node.metrics.syncEntries.Observe(float64(len(logs)))
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *syncedLog) DeleteRange(first, last uint64) error {
	end, err := l.WAL.LastIndex()
	if err == nil && last >= end && first <= end {
		err = l.node.mark.lower(first - 1)
	}
	if err == nil {
		err = l.WAL.DeleteRange(first, last)
	}
	if err != nil && !errors.Is(err, wal.ErrClosed) {
		l.node.fail(fmt.Errorf("cut the log: %w", err))
	}
	return err
}

// stateLogger is where pebble's messages go. Its Fatalf must not return: pebble
// relies on that after an error that it cannot undo.
type stateLogger struct{ node *Node }

var _ pebble.Logger = stateLogger{}

func (s stateLogger) Infof(format string, args ...any) {
	if s.node.log.Enabled(context.Background(), slog.LevelDebug) {
		s.node.log.Debug("state: " + fmt.Sprintf(format, args...))
	}
}

func (s stateLogger) Errorf(format string, args ...any) {
	s.node.log.Error("state: " + fmt.Sprintf(format, args...))
}

func (s stateLogger) Fatalf(format string, args ...any) {
	s.node.fail(fmt.Errorf("state database: "+format, args...))
	runtime.Goexit()
}

// raftLogger gives hclog lines of raft and raft-wal to slog, errors only: what
// they say below is about elections of a node that has no rival.
func raftLogger(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Error, Output: slogWriter{log}, DisableTime: true})
}

type slogWriter struct{ log *slog.Logger }

// Write implements io.Writer: one line of hclog.
func (w slogWriter) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level := slog.LevelInfo
	switch {
	case strings.HasPrefix(line, "[WARN]"):
		level = slog.LevelWarn
	case strings.HasPrefix(line, "[ERROR]"):
		level = slog.LevelError
	}
	if _, rest, ok := strings.Cut(line, "] "); ok {
		line = strings.TrimSpace(rest)
	}
	w.log.Log(context.Background(), level, line)
	return len(p), nil
}
