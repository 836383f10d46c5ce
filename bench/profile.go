package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// profile takes a CPU profile of bsmtpd in the first round, if profiles are
// wanted. The caller calls wait before the server stops.
func (b *bench) profile(srv server, round int, length time.Duration) (wait func()) {
	s, ok := srv.(*bsmtpd)
	if !ok || !b.profiling || round > 0 {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		file := filepath.Join(b.results, b.current+".pprof")
		if err := s.cpuProfile(file, length); err != nil {
			b.say("    no profile: %v", err)
			return
		}
		b.say("    profile of bsmtpd: go tool pprof %s", file)
	}()
	return func() { <-done }
}

// cpuProfile asks the admin socket for a profile.
func (s *bsmtpd) cpuProfile(file string, length time.Duration) error {
	seconds := max(1, int(length.Seconds()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds+30)*time.Second)
	defer cancel()
	resp, err := s.admin(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
