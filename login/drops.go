package login

import (
	"log/slog"
	"sync"
	"time"
)

// dropLogEvery bounds the log lines about dropped packets: one per reason in
// this time. Whoever floods the port must not flood the log.
const dropLogEvery = 10 * time.Second

// drops logs dropped packets, seldom.
type drops struct {
	log  *slog.Logger
	mu   sync.Mutex // guards last and more
	last map[string]time.Time
	more map[string]int64 // since last, by reason; reasons are few and fixed
}

func (d *drops) say(reason, from, why string) {
	d.mu.Lock()
	now := time.Now()
	if d.last == nil {
		d.last, d.more = map[string]time.Time{}, map[string]int64{}
	}
	if last, before := d.last[reason]; before && now.Sub(last) < dropLogEvery {
		d.more[reason]++
		d.mu.Unlock()
		return
	}
	more := d.more[reason]
	d.last[reason], d.more[reason] = now, 0
	d.mu.Unlock()
	d.log.Warn("radius packet dropped", "reason", reason, "from", from, "why", why, "unlogged", more)
}
