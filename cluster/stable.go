package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// stableStore keeps raft's term and vote. raft panics where a term cannot be saved,
// which would end the process in the middle of its orderly stop: a node whose log
// could not be written loses its lead, and stands for election again at once.
//
// So a failure is told to the node, which must stop, and raft goes on. That is
// safe: a vote that cannot be saved is still not given, and a failed node adds
// nothing to its log.
type stableStore struct {
	*wal.WAL
	node *Node
}

var _ raft.StableStore = (*stableStore)(nil)

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	if err := s.WAL.SetUint64(key, value); err != nil {
		s.node.fail(fmt.Errorf("save the term of the log: %w", err))
	}
	return nil
}
