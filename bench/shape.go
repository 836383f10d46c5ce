package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// line is a customer's line: what leaves arrives after delay, and not more than
// rate bytes per second, over all connections together. Only the octets of the
// connections count, not the headers of their packets.
type line struct {
	rate  float64 // bytes per second, each way
	delay time.Duration
}

const (
	segment   = 1448                  // bytes that travel together
	lineQueue = 50 * time.Millisecond // of the line's rate, that wait at its beginning
)

// shaper is a line with a listener at its beginning and the customer's server at
// its end.
type shaper struct {
	line     line
	listener net.Listener
	server   string
	out, in  direction // to the server, and back
	wg       sync.WaitGroup

	mu   sync.Mutex // guards what follows
	open map[net.Conn]bool
	shut bool
}

// direction is one way of the line; all connections take turns on it.
type direction struct {
	mu     sync.Mutex // guards free
	free   time.Time  // when all that was sent has left
	passed atomic.Int64
}

// startShaper listens on an address and passes connections on to the server.
func startShaper(addr, server string, l line) (*shaper, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &shaper{line: l, listener: listener, server: server, open: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.carry(c) })
		}
	})
	return s, nil
}

// stop cuts the line.
func (s *shaper) stop() {
	s.listener.Close()
	s.mu.Lock()
	s.shut = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// keep notes a connection for stop; false: the line is cut already.
func (s *shaper) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		c.Close()
		return false
	}
	s.open[c] = true
	return true
}

func (s *shaper) close(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	c.Close()
}

func (s *shaper) carry(near net.Conn) {
	if !s.keep(near) {
		return
	}
	defer s.close(near)
	// The system has answered at once; over the line that takes a round trip.
	time.Sleep(2 * s.line.delay)
	far, err := net.Dial("tcp", s.server)
	if err != nil || !s.keep(far) {
		return
	}
	defer s.close(far)
	back := make(chan struct{})
	go func() {
		defer close(back)
		s.pass(near, far, &s.in)
	}()
	s.pass(far, near, &s.out)
	<-back
}

// parcel is on its way; one without data is the end of the stream.
type parcel struct {
	data []byte
	at   time.Time // of its arrival
}

// pass carries octets one way until the stream ends.
func (s *shaper) pass(dst, src net.Conn, d *direction) {
	way := make(chan parcel, 4096)
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		for p := range way {
			time.Sleep(time.Until(p.at))
			if _, err := dst.Write(p.data); err != nil {
				src.Close()
			}
			d.passed.Add(int64(len(p.data)))
		}
		if t, ok := dst.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}()
	for {
		d.wait()
		b := make([]byte, segment)
		n, err := src.Read(b)
		if n > 0 {
			way <- parcel{b[:n], d.send(n, s.line)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	<-arrived
}

// wait until there is room at the line's beginning.
func (d *direction) wait() {
	for {
		d.mu.Lock()
		ahead := time.Until(d.free)
		d.mu.Unlock()
		if ahead <= lineQueue {
			return
		}
		time.Sleep(ahead - lineQueue)
	}
}

// send puts n bytes on the line and says when they arrive.
func (d *direction) send(n int, l line) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return d.free.Add(l.delay)
}

// use is the part of the line's way to the server that was used in a time.
func (s *shaper) use(ctx context.Context, length time.Duration) (float64, error) {
	before, began := s.out.passed.Load(), time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return float64(s.out.passed.Load()-before) / (s.line.rate * time.Since(began).Seconds()), nil
}
