package simtest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// keptLines is how much of a journal is kept.
const keptLines = 4000

// journal is what happened in a world: the node's log and the story's steps.
type journal struct {
	mu       sync.Mutex // guards what follows
	lines    []string   // the newest, at most keptLines and a few
	attempts []attempt
	faults   []string // lines at level error
	excused  []string // what a fault may contain
	seen     map[string]int
}

// attempt is a push session as the node tells of it.
type attempt struct {
	queue, cause, outcome string
	began, ended          time.Time
}

func newJournal() *journal { return &journal{seen: map[string]int{}} }

func (j *journal) add(who, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%s %-6s %s", day(time.Now()), who, text))
	if len(j.lines) > 2*keptLines {
		j.lines = append(j.lines[:0], j.lines[keptLines:]...)
	}
}

func (j *journal) tail(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines[max(0, len(j.lines)-n):], "\n")
}

// excuse lets lines at level error pass that contain some words.
func (j *journal) excuse(words string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.excused = append(j.excused, words)
}

// unexcused are the lines at level error that nobody expected.
func (j *journal) unexcused() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
next:
	for _, f := range j.faults {
		for _, e := range j.excused {
			if strings.Contains(f, e) {
				continue next
			}
		}
		out = append(out, f)
	}
	return out
}

func (j *journal) allAttempts() []attempt {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]attempt(nil), j.attempts...)
}

// times is how often the node has logged a message.
func (j *journal) times(message string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seen[message]
}

// pen is the slog handler of one life of the node. What a node says whose power
// has failed is not written down: it has not happened.
type pen struct {
	j     *journal
	who   string
	dead  *atomic.Bool
	attrs []slog.Attr
}

var _ slog.Handler = (*pen)(nil)

// Enabled implements slog.Handler.
func (p *pen) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithGroup implements slog.Handler; groups are not told apart.
func (p *pen) WithGroup(string) slog.Handler { return p }

// WithAttrs implements slog.Handler.
func (p *pen) WithAttrs(attrs []slog.Attr) slog.Handler {
	q := *p
	q.attrs = append(q.attrs[:len(q.attrs):len(q.attrs)], attrs...)
	return &q
}

// Handle implements slog.Handler.
func (p *pen) Handle(_ context.Context, r slog.Record) error {
	if p.dead.Load() {
		return nil
	}
	var b strings.Builder
	if r.Level != slog.LevelInfo {
		b.WriteString(r.Level.String() + " ")
	}
	b.WriteString(r.Message)
	a := attempt{ended: time.Now()}
	took := time.Duration(0)
	each := func(at slog.Attr) bool {
		text := at.Value.String()
		switch at.Key {
		case "queue":
			a.queue = text
		case "cause":
			a.cause = text
		case "outcome":
			a.outcome = text
		case "took":
			took, _ = at.Value.Any().(time.Duration)
		}
		fmt.Fprintf(&b, " %s=%s", at.Key, text)
		return true
	}
	for _, at := range p.attrs {
		each(at)
	}
	r.Attrs(each)
	p.j.add(p.who, b.String())
	p.j.mu.Lock()
	defer p.j.mu.Unlock()
	p.j.seen[r.Message]++
	if r.Level >= slog.LevelError {
		p.j.faults = append(p.j.faults, b.String())
	}
	if r.Message == "attempted" {
		a.began = a.ended.Add(-took)
		p.j.attempts = append(p.j.attempts, a)
	}
	return nil
}
