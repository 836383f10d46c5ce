package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	out       io.Writer
	quick     bool
	alone     bool
	profiling bool
	keep      bool
	binary    string // bsmtpd
	results   string // directory
	dir       string // working directory
	machine   machine
	current   string // scenario
	noPostfix string // why Postfix is not measured; empty: it is
	seq       int    // of fresh directories
	figures   []figure
	began     time.Time
}

const (
	smtpSource = "/usr/sbin/smtp-source"
	smtpSink   = "/usr/sbin/smtp-sink"
	rounds     = 3
)

// skipped is the error of a scenario that cannot be measured here.
type skipped string

func (s skipped) Error() string { return string(s) }

// open makes the working directory, finds what is there and builds the program.
func (b *bench) open(ctx context.Context, parent string) error {
	b.began = time.Now()
	if err := moreFiles(); err != nil {
		return err
	}
	var err error
	if b.dir, err = os.MkdirTemp(parent, "bsmtpd-bench-"); err != nil {
		return err
	}
	// Postfix's processes run as its own user.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if b.noPostfix = findPostfix(b.alone); b.noPostfix != "" {
		b.say("Postfix is not measured: %s", b.noPostfix)
	}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "bsmtpd")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, "bsmtpd/cmd/bsmtpd")
		if out, err := build.CombinedOutput(); err != nil {
			b.close()
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	b.machine = look(ctx, b.dir, b.binary)
	b.say("%s", b.machine)
	return nil
}

// moreFiles raises the limit on open files for this process and its children, as
// far as that is allowed.
func moreFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = max(l.Cur, min(l.Max, 65536))
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

func findPostfix(alone bool) string {
	switch {
	case alone:
		return "-alone"
	case os.Geteuid() != 0:
		return "it must be started as root"
	}
	for _, f := range []string{postfixCommand, postfixMaster, "/usr/sbin/postqueue"} {
		if _, err := os.Stat(f); err != nil {
			return "there is no " + f + "; scripts/peers.sh installs it on Debian"
		}
	}
	return ""
}

// needs skips a scenario without a tool.
func needs(files ...string) error {
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return skipped("there is no " + f + "; scripts/peers.sh installs it on Debian")
		}
	}
	return nil
}

// close removes the working directory.
func (b *bench) close() {
	if b.keep {
		b.say("the working directory stays: %s", b.dir)
		return
	}
	if err := os.RemoveAll(b.dir); err != nil {
		b.say("the working directory could not be removed: %v", err)
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// all runs scenarios; one that fails does not keep the others from running.
func (b *bench) all(ctx context.Context, chosen []scenario) {
	for _, s := range chosen {
		if ctx.Err() != nil {
			return
		}
		b.current = s.name
		b.say("%s: %s", s.name, s.about)
		limited, cancel := context.WithTimeout(ctx, s.limit)
		n := len(b.figures)
		err := s.run(limited, b)
		if errors.Is(limited.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("broken off after %s: %w", s.limit, err)
		}
		cancel()
		for i := range b.figures[n:] {
			b.figures[n+i].Scenario = s.name
			b.say("    %s", b.figures[n+i])
		}
		var skip skipped
		switch {
		case errors.As(err, &skip):
			b.say("    skipped: %v", err)
			b.figures = append(b.figures, figure{Scenario: s.name, Name: s.about, Skipped: err.Error()})
		case err != nil:
			b.say("    failed: %v", err)
			b.figures = append(b.figures, figure{Scenario: s.name, Name: s.about, Failed: err.Error()})
		}
	}
}

// fresh is a new directory below the working directory.
func (b *bench) fresh(name string) (string, error) {
	b.seq++
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, b.seq))
	return dir, os.Mkdir(dir, 0o755)
}

// size chooses between the count that measures and the one that shows that it
// works.
func size[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// turns runs do for each server by turns, every time with an empty queue:
// Postfix, bsmtpd, Postfix, … Both meet the same neighbours on a machine whose
// speed changes.
func (b *bench) turns(ctx context.Context, s setup, do func(ctx context.Context, srv server, round int) error) error {
	for round := range size(b, rounds, 1) {
		for _, srv := range b.servers() {
			if err := b.turn(ctx, srv, s, func() error { return do(ctx, srv, round) }); err != nil {
				return fmt.Errorf("%s: %w", srv.name(), err)
			}
		}
	}
	return nil
}

// turn is the life of one server.
func (b *bench) turn(ctx context.Context, srv server, s setup, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	syscall.Sync() // what others left to be written is not this server's
	defer srv.stop()
	if err := srv.start(ctx, s); err != nil {
		return err
	}
	return do()
}

// servers are those to compare; the first goes first.
func (b *bench) servers() []server {
	out := []server{}
	if b.noPostfix == "" {
		out = append(out, newPostfix(b))
	}
	return append(out, newBsmtpd(b))
}

// median of values; 0 if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// until asks every step until the answer is yes.
func until(ctx context.Context, step time.Duration, what string, ask func() (bool, error)) error {
	var last error
	for {
		ok, err := ask()
		if ok && err == nil {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting until %s: %w", what, ctx.Err()), last)
		case <-time.After(step):
		}
	}
}

// hasWord reports whether a word stands in a list with spaces between its words.
func hasWord(list, word string) bool { return slices.Contains(strings.Fields(list), word) }
