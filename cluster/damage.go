package cluster

import (
	"fmt"
	"sync"
	"time"

	"bsmtpd/kv"
)

// damage is what was met of damaged files while the node ran. Whoever reads a
// message is told by its own error; here it is counted, and kept for an operator.
type damage struct {
	mu    sync.Mutex // guards the rest
	count int64
	last  *kv.Damage
	told  time.Time // when it was last logged
}

// damageEvery bounds how often damage is logged: a compaction meets the same bad
// block again and again.
const damageEvery = time.Minute

// wayOut is what to do about a damaged file of the state database.
func wayOut(dir string) string {
	return fmt.Sprintf(`the disk is not sound: see its kernel log, stop the node, run "bsmtpd spool verify --data %s", and restore the whole directory from a backup`, dir)
}

// damaged is told of each bad block or lost file that pebble meets.
func (n *Node) damaged(d *kv.Damage) {
	n.metrics.badReads.Inc()
	now := time.Now()
	n.damage.mu.Lock()
	n.damage.count++
	n.damage.last = d
	quiet := now.Sub(n.damage.told) < damageEvery
	if !quiet {
		n.damage.told = now
	}
	count := n.damage.count
	n.damage.mu.Unlock()
	if !quiet {
		n.log.Error("a file of the state database is damaged: what stands in it cannot be delivered", "file", d.File, "error", d.Err, "met", count, "do", wayOut(n.opts.Dir))
	}
}

// Damaged says what is wrong with files that the node goes on with, and what to
// do; empty: nothing was met since the start.
func (n *Node) Damaged() string {
	n.damage.mu.Lock()
	defer n.damage.mu.Unlock()
	if n.damage.last == nil {
		return ""
	}
	return fmt.Sprintf("%s (met %d times since the start); %s", n.damage.last, n.damage.count, wayOut(n.opts.Dir))
}

func (n *Node) markFailed(err error) { n.fail(fmt.Errorf("note how far the log is synced: %w", err)) }
