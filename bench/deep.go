package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// deep looks at a queue that is far deeper than any that should be.
func deep(ctx context.Context, b *bench) error {
	if err := deepBsmtpd(ctx, b); err != nil {
		return fmt.Errorf("bsmtpd: %w", err)
	}
	if b.noPostfix != "" {
		return nil
	}
	if err := deepPostfix(ctx, b); err != nil {
		return fmt.Errorf("postfix: %w", err)
	}
	return nil
}

const deepLength = 4096

// depth collects figures of a deep queue.
type depth struct {
	b      *bench
	server string
}

func (d depth) add(name, unit string, want target, values ...float64) {
	f := figure{Name: name, Unit: unit, Target: want}
	for _, v := range values {
		f.add(d.server, v)
	}
	d.b.figures = append(d.b.figures, f)
}

func deepBsmtpd(ctx context.Context, b *bench) error {
	c := &crowd{newBsmtpd(b), size(b, 100_000, 1000)}
	n, some := size(b, 1_000_000, 10_000), size(b, 100_000, 5000)
	d := depth{b, c.name()}
	defer c.stop()
	if err := c.start(ctx, setup{hold: true}); err != nil {
		return err
	}
	down, err := freeAddr()
	if err != nil {
		return err
	}
	if err := c.enrol(ctx, func(int) string { return down }); err != nil {
		return err
	}
	most := watchMemory(c.group(), time.Second)
	defer most()
	f := &fill{addr: c.smtp, connections: 64, length: deepLength, to: func(i int) string { return crowdAddress(i % c.size) }}
	began := time.Now()
	if err := f.bring(ctx, 0, some, nil); err != nil {
		return err
	}
	filling := time.Since(began)
	if err := d.lists(ctx, fmt.Sprintf("queue list of %s", number(float64(some))), target{}, some, c.cli("queue", "list")); err != nil {
		return err
	}
	began = time.Now()
	if err := f.bring(ctx, some, n, nil); err != nil {
		return err
	}
	filling += time.Since(began)
	what := number(float64(n)) + " queued: "
	d.add(what+"filled at, customers' servers refusing", "messages/s", target{}, float64(n)/filling.Seconds())
	if err := c.allFailing(ctx); err != nil {
		return err
	}
	d.add(what+"most memory while filling, RSS", "MiB", target{}, mib(most().rss))
	if err := d.disk(ctx, what, c.data(), n); err != nil {
		return err
	}
	return d.restarts(ctx, c, what, n)
}

// disk waits until the server has tidied up, and says what it takes.
func (d depth) disk(ctx context.Context, what, dir string, n int) error {
	select {
	case <-time.After(size(d.b, 20*time.Second, time.Second)):
	case <-ctx.Done():
		return ctx.Err()
	}
	used, err := diskUse(dir)
	d.add(what+"disk per payload", "×", target{AtMost: 1.3}, float64(used)/float64(n)/deepLength)
	return err
}

// restarts of a deep bsmtpd, and its commands after them.
func (d depth) restarts(ctx context.Context, c *crowd, what string, n int) error {
	var stopped, killed []float64
	for range size(d.b, rounds, 1) {
		c.run.end(time.Minute)
		took, err := c.restart(ctx)
		if err != nil {
			return err
		}
		stopped = append(stopped, took.Seconds())
	}
	c.run.kill()
	took, err := c.restart(ctx)
	if err != nil {
		return err
	}
	killed = append(killed, took.Seconds())
	d.add(what+"start to first accept, after a stop", "s", target{AtMost: 3}, stopped...)
	d.add(what+"start to first accept, after a kill", "s", target{AtMost: 3}, killed...)
	n += len(stopped) + len(killed) // the accepted ones
	most := watchMemory(c.group(), 200*time.Millisecond)
	defer most()
	queues := c.size
	err = errors.Join(
		d.lists(ctx, what+"queue summary", target{AtMost: 1}, queues, c.cli("queue", "summary")),
		d.lists(ctx, what+"queue list", target{AtMost: 5}, n, c.cli("queue", "list")),
		d.lists(ctx, what+"queue list -o json", target{}, n, c.cli("queue", "list", "-o", "json")))
	d.add(what+"most memory after restart with lists, RSS", "MiB", target{AtMost: 512}, mib(most().rss))
	return err
}

// restart starts the program on what is there and takes one message.
func (c *crowd) restart(ctx context.Context) (time.Duration, error) {
	c.all.end() // nobody is left in it
	began := time.Now()
	if err := c.launch(ctx); err != nil {
		return 0, err
	}
	err := accepts(ctx, c.smtp, recipient)
	return time.Since(began), err
}

// cli is one of the program's commands.
func (s *bsmtpd) cli(args ...string) []string {
	return append([]string{s.b.binary, "--data", s.data()}, args...)
}

// lists takes the time of a command whose output has at least so many lines.
func (d depth) lists(ctx context.Context, name string, want target, least int, args []string) error {
	var took []float64
	for range size(d.b, rounds, 1) {
		var out lineCounter
		var errs bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		dieWithUs(cmd)
		began := time.Now()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, errs.String())
		}
		took = append(took, time.Since(began).Seconds())
		if out.lines < least {
			return fmt.Errorf("%s: %d lines, not %d", strings.Join(args, " "), out.lines, least)
		}
	}
	d.add(name, "s", want, took...)
	return nil
}

// lineCounter counts the lines that are written to it.
type lineCounter struct{ lines int }

func (l *lineCounter) Write(b []byte) (int, error) {
	l.lines += bytes.Count(b, []byte("\n"))
	return len(b), nil
}

func deepPostfix(ctx context.Context, b *bench) error {
	p := newPostfix(b)
	n := size(b, 100_000, 2000)
	d := depth{b, p.name()}
	defer p.stop()
	down, err := freeAddr()
	if err != nil {
		return err
	}
	if err := p.start(ctx, setup{next: down}); err != nil {
		return err
	}
	f := &fill{addr: p.smtp, connections: 16, length: deepLength, to: func(i int) string { return fmt.Sprintf("user%d@%s", i, customerDomain) }}
	began := time.Now()
	if err := f.bring(ctx, 0, n, nil); err != nil {
		return err
	}
	what := fmt.Sprintf("Postfix, %s queued: ", number(float64(n)))
	d.add(what+"filled at", "messages/s", target{}, float64(n)/time.Since(began).Seconds())
	if err := until(ctx, time.Second, "all are deferred", func() (bool, error) { return p.settled(ctx) }); err != nil {
		return err
	}
	if err := d.disk(ctx, what, p.path("queue"), n); err != nil {
		return err
	}
	d.b.figures[len(d.b.figures)-1].Target = target{}
	if err := d.lists(ctx, what+"postqueue -p", target{}, n, []string{"/usr/sbin/postqueue", "-c", p.path("etc"), "-p"}); err != nil {
		return err
	}
	var took []float64
	for range size(b, rounds, 1) {
		p.stop()
		began := time.Now()
		if err := p.launch(ctx); err != nil {
			return err
		}
		if err := accepts(ctx, p.smtp, recipient); err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
	}
	d.add(what+"start to first accept", "s", target{}, took...)
	return nil
}
