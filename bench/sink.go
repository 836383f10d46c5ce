package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// sink is smtp-sink as the customer's server, with its counter watched.
type sink struct {
	run *running

	mu          sync.Mutex // guards what follows
	count       int
	first, last time.Time // arrival of messages
}

// startSink listens on an address; it returns when connections are taken.
func startSink(ctx context.Context, addr string) (*sink, error) {
	s := &sink{}
	cmd := exec.Command(smtpSink, "-4", "-c", "-m", "2000", addr, "1024")
	cmd.Stdout = &counter{s: s}
	var err error
	if s.run, err = begin(cmd); err != nil {
		return nil, err
	}
	err = until(ctx, 5*time.Millisecond, "smtp-sink is there", func() (bool, error) {
		if !s.run.alive() {
			return false, fmt.Errorf("smtp-sink has ended")
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil, err
	})
	if err != nil {
		s.stop()
	}
	return s, err
}

func (s *sink) stop() { s.run.end(5 * time.Second) }

// got is how many messages came, and when.
func (s *sink) got() (count int, first, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.first, s.last
}

// wait until count messages have come.
func (s *sink) wait(ctx context.Context, count int) error {
	return until(ctx, 10*time.Millisecond, fmt.Sprintf("%d messages have come", count), func() (bool, error) {
		n, _, _ := s.got()
		return n >= count, nil
	})
}

// counter reads smtp-sink's display: "sess=3 quit=2 mesg=17", again and again.
type counter struct {
	s    *sink
	tail []byte // what may be the beginning of a number
}

var mesg = regexp.MustCompile(`mesg=(\d+)[^\d]`)

func (c *counter) Write(b []byte) (int, error) {
	now := time.Now()
	c.tail = append(c.tail, b...)
	if all := mesg.FindAllSubmatch(c.tail, -1); len(all) > 0 {
		n, _ := strconv.Atoi(string(all[len(all)-1][1]))
		c.s.mu.Lock()
		if n > c.s.count {
			if c.s.count == 0 {
				c.s.first = now
			}
			c.s.count, c.s.last = n, now
		}
		c.s.mu.Unlock()
	}
	if i := bytes.LastIndex(c.tail, []byte("mesg=")); i > 0 {
		c.tail = append(c.tail[:0], c.tail[i:]...)
	}
	return len(b), nil
}
