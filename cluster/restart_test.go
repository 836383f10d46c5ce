package cluster

import (
	"testing"
)

// Raft's own entries count for the index of a snapshot without coming to the
// rows; a node that nobody gave any work must still find its directory whole.
func TestAnIdleNodeMayBeRestartedAsOftenAsOneLikes(t *testing.T) {
	w := newWorld(t)
	for range trailingLogs/2 + 4 { // each start adds two entries or three
		w.node.Close()
		w.start(false)
	}
	w.account("jansen", 1<<20)
	w.node.Close()
	w.start(false)
	if a, err := w.node.Directory().Account("jansen"); err != nil || a == nil {
		t.Errorf("the account is gone: %v, %v", a, err)
	}
	w.node.Close()
}
