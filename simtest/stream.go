package simtest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	segmentBytes = 1460     // what one packet carries
	windowBytes  = 64 << 10 // on the way and not read; then the writer waits
)

// stream is one direction of a connection: packets that arrive in order, each at
// its time. Whoever waits does so on a channel or timer, never with the mutex.
type stream struct {
	line Line

	mu       sync.Mutex // guards what follows
	changed  chan struct{}
	queue    []segment
	size     int       // bytes in queue
	free     time.Time // when the line has sent what it was given
	end      error     // io.EOF or a reset: what the reader sees after the queue
	endAt    time.Time
	deaf     bool  // the reader has closed, or is gone: what arrives is lost
	mute     bool  // and nobody answers either: the machine has no power
	broken   error // what the writer sees
	brokenAt time.Time

	cut   bool // nothing passes
	cutAt time.Time

	readBy, writeBy time.Time
	noRead, noWrite bool // closed at this end
}

type segment struct {
	data []byte
	at   time.Time
}

func newStream(l Line) *stream { return &stream{line: l, changed: make(chan struct{})} }

// set changes something and wakes whoever waits.
func (s *stream) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.tell()
}

func (s *stream) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// passed reports whether something sent so as to arrive at a time is there.
func (s *stream) passed(at, now time.Time) bool {
	return !at.After(now) && (!s.cut || !at.After(s.cutAt))
}

// read gives what has arrived; one packet at most where whole is set.
func (s *stream) read(p []byte, whole bool) (int, error) {
	for {
		n, wait, changed, err := s.tryRead(p, whole)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		await(changed, wait)
	}
}

// await returns at a time, the zero time being never, or when changed is closed.
func await(changed <-chan struct{}, at time.Time) {
	if at.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func (s *stream) tryRead(p []byte, whole bool) (n int, wait time.Time, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.noRead:
		return 0, wait, nil, net.ErrClosed
	case !s.readBy.IsZero() && !now.Before(s.readBy):
		return 0, wait, nil, os.ErrDeadlineExceeded
	}
	for len(s.queue) > 0 && n < len(p) && s.passed(s.queue[0].at, now) && (n == 0 || !whole) {
		k := copy(p[n:], s.queue[0].data)
		n += k
		if s.queue[0].data = s.queue[0].data[k:]; len(s.queue[0].data) == 0 {
			s.queue[0] = segment{}
			s.queue = s.queue[1:]
		}
	}
	if n > 0 {
		s.size -= n
		s.tell() // the writer has room
		return n, wait, nil, nil
	}
	if len(s.queue) == 0 && s.end != nil && s.passed(s.endAt, now) {
		return 0, wait, nil, s.end
	}
	wait = s.readBy
	next := s.endAt
	if len(s.queue) > 0 {
		next = s.queue[0].at
	}
	if next.After(now) && !s.cut && (wait.IsZero() || next.Before(wait)) {
		wait = next
	}
	return 0, wait, s.changed, nil
}

func (s *stream) write(p []byte) (int, error) {
	total := 0
	for {
		n, wait, changed, err := s.tryWrite(p)
		total, p = total+n, p[n:]
		if err != nil || len(p) == 0 {
			return total, err
		}
		if n == 0 {
			await(changed, wait)
		}
	}
}

func (s *stream) tryWrite(p []byte) (n int, wait time.Time, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.noWrite:
		return 0, wait, nil, net.ErrClosed
	case !s.writeBy.IsZero() && !now.Before(s.writeBy):
		return 0, wait, nil, os.ErrDeadlineExceeded
	case s.broken != nil && !now.Before(s.brokenAt):
		return 0, wait, nil, s.broken
	case len(p) == 0:
		return 0, wait, nil, nil
	case s.size >= windowBytes:
		wait = s.writeBy
		if s.broken != nil && (wait.IsZero() || s.brokenAt.Before(wait)) {
			wait = s.brokenAt
		}
		return 0, wait, s.changed, nil
	}
	n = min(len(p), windowBytes-s.size)
	if s.deaf {
		s.lose(now, n)
		return n, wait, nil, nil
	}
	for rest := p[:n]; len(rest) > 0; {
		k := min(len(rest), segmentBytes)
		s.queue = append(s.queue, segment{append([]byte(nil), rest[:k]...), s.arrival(now, k)})
		rest = rest[k:]
	}
	s.size += n
	s.tell()
	return n, wait, nil, nil
}

// arrival is when n bytes that are sent now are there.
func (s *stream) arrival(now time.Time, n int) time.Time {
	if s.free.Before(now) {
		s.free = now
	}
	if s.line.Rate > 0 {
		s.free = s.free.Add(time.Duration(n) * time.Second / time.Duration(s.line.Rate))
	}
	return s.free.Add(s.line.Latency)
}

// lose is what becomes of bytes that nobody takes: a machine that is there
// answers them with a reset, one without power does not answer.
func (s *stream) lose(now time.Time, n int) {
	if s.mute {
		s.size += n // never acknowledged: one day the window is full
		return
	}
	if s.broken == nil && !s.cut {
		s.broken, s.brokenAt = syscall.ECONNRESET, now.Add(2*s.line.Latency)
		s.tell()
	}
}

// finish ends the stream behind what was written.
func (s *stream) finish(now time.Time) {
	if s.end == nil {
		s.end, s.endAt = io.EOF, s.arrival(now, 0)
		s.tell()
	}
}

// reset ends both uses of the stream: the reader's and the writer's.
func (s *stream) reset(at time.Time) {
	if s.end == nil || s.end == io.EOF && s.endAt.After(at) {
		s.end, s.endAt = syscall.ECONNRESET, at
	}
	if s.broken == nil {
		s.broken, s.brokenAt = syscall.ECONNRESET, at
	}
	s.tell()
}

// sever lets nothing pass any more; mend lets it pass again. TCP sends anew what
// was lost in between.
func (s *stream) sever(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.cut, s.cutAt = true, now
		s.tell()
	}
}

func (s *stream) mend(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		return
	}
	s.cut, s.free = false, now
	for i := range s.queue {
		if s.queue[i].at.After(s.cutAt) {
			s.queue[i].at = s.arrival(now, len(s.queue[i].data))
		}
	}
	if s.end != nil && s.endAt.After(s.cutAt) {
		s.endAt = s.arrival(now, 0)
	}
	s.tell()
}
