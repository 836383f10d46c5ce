package node

import (
	"io"
	"sync"
)

// maxPendingLog bounds the log lines that wait to be written; past it whoever
// logs waits too.
const maxPendingLog = 1 << 20

// LineWriter hands lines to a writer from a goroutine of its own. While one write
// is under way the lines that come meanwhile share the next: an idle node's line
// is written at once, and a busy one does not pay a system call for each. A
// process that is killed loses the lines of its last moment.
type LineWriter struct {
	w    io.Writer
	done chan struct{}

	mu      sync.Mutex // guards the rest
	more    *sync.Cond // pending has grown, or closed
	less    *sync.Cond // pending was taken
	pending []byte
	closed  bool
}

var _ io.WriteCloser = (*LineWriter)(nil)

// NewLineWriter starts writing to w; end it with Close.
func NewLineWriter(w io.Writer) *LineWriter {
	l := &LineWriter{w: w, done: make(chan struct{})}
	l.more, l.less = sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	go l.run()
	return l
}

// Write implements io.Writer. After Close it writes at once.
func (l *LineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) >= maxPendingLog && !l.closed {
		l.less.Wait()
	}
	if l.closed {
		return l.w.Write(p)
	}
	l.pending = append(l.pending, p...)
	l.more.Signal()
	return len(p), nil
}

// Close returns when all lines are written.
func (l *LineWriter) Close() error {
	l.mu.Lock()
	l.closed = true
	l.more.Signal()
	l.less.Broadcast()
	l.mu.Unlock()
	<-l.done
	return nil
}

func (l *LineWriter) run() {
	defer close(l.done)
	var spare []byte
	for {
		l.mu.Lock()
		for len(l.pending) == 0 && !l.closed {
			l.more.Wait()
		}
		lines, ended := l.pending, l.closed
		l.pending = spare[:0]
		l.less.Broadcast()
		l.mu.Unlock()
		// Where the log cannot be written there is nobody to tell.
		_, _ = l.w.Write(lines)
		if ended {
			return
		}
		spare = lines
	}
}
