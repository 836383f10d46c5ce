package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"bsmtpd/host"

	"github.com/hashicorp/raft"
)

// A Raft snapshot of ours is a promise, not a copy: the state database was
// flushed and holds everything up to an index. What is kept is the promise, one
// small file; the rows stay where they are. raft does not read it back at a
// restart (NoSnapshotRestoreOnStart): it goes on from the rows.
//
// A follower that is too far behind would need the rows themselves. Sending them
// is not built yet, so this node must be the only one.
type snapshotStore struct {
	fs  host.FS
	dir string
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

const (
	snapshotSuffix  = ".json"
	maxSnapshotFile = 1 << 20
	keepSnapshots   = 2
)

var errNoStream = errors.New("sending a snapshot to another node is not part of this version: a node has to be the only one of its cluster")

func (s *snapshotStore) name(id string) string { return path.Join(s.dir, id+snapshotSuffix) }

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%020d-%d", index, term), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore: newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var out []*raft.SnapshotMeta
	for _, id := range ids {
		data, err := host.ReadFile(s.fs, s.name(id), maxSnapshotFile)
		if err != nil {
			return nil, err
		}
		var meta raft.SnapshotMeta
		if err := json.Unmarshal(data, &meta); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", s.name(id), err)
		}
		out = append(out, &meta)
	}
	return out, nil
}

func (s *snapshotStore) ids() ([]string, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range names {
		if id, ok := strings.CutSuffix(n, snapshotSuffix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshotStore) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, errNoStream
}

type snapshotSink struct {
	store *snapshotStore
	meta  raft.SnapshotMeta
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.meta.ID }

// Write implements io.Writer; nothing is to be written.
func (s *snapshotSink) Write(p []byte) (int, error) { return len(p), nil }

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error { return nil }

// Close makes the promise durable and drops older ones.
func (s *snapshotSink) Close() error {
	data, err := json.Marshal(s.meta)
	if err != nil {
		return err
	}
	if err := host.WriteFile(s.store.fs, s.store.name(s.meta.ID), data); err != nil {
		return err
	}
	ids, err := s.store.ids()
	if err != nil {
		return err
	}
	for _, id := range ids[min(keepSnapshots, len(ids)):] {
		if err := s.store.fs.Remove(s.store.name(id)); err != nil {
			return err
		}
	}
	return nil
}
