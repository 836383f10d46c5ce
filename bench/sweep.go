package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// sweep looks at what the four-hourly sweep costs when every customer's server is
// down: first all refuse connections, as a host does whose mail server has ended;
// then a part swallows them, as a line does that is not there.
func sweep(ctx context.Context, b *bench) error {
	c := &crowd{newBsmtpd(b), size(b, 100_000, 1000)}
	swallowed := size(b, 20_000, 100)
	defer c.stop()
	far, err := farAddrs(2)
	if err != nil {
		return err
	}
	route := func(i int) string {
		if i < swallowed {
			return far[1]
		}
		return far[0]
	}
	if err := b.waiting(ctx, c, nil, route); err != nil {
		return err
	}
	refused := fmt.Sprintf("sweep over %s, all refuse", number(float64(c.size)))
	if err := b.oneSweep(ctx, c, refused, nil, target{AtMost: (10 * time.Minute).Seconds()}); err != nil {
		return err
	}
	h, err := openBlackHole(far[1])
	if err != nil {
		return err
	}
	defer h.close()
	// What a provider of this size sets: each of these waits for the whole
	// delivery.connect_timeout.
	const sessions = 2000
	swallows := fmt.Sprintf("sweep over %s, %s of them swallow connections, delivery.sessions %d", number(float64(c.size)), number(float64(swallowed)), sessions)
	return b.oneSweep(ctx, c, swallows, map[string]any{"delivery.sessions": sessions}, target{AtMost: (10 * time.Minute).Seconds()})
}

// oneSweep restarts the server such that a sweep is due, and follows it.
func (b *bench) oneSweep(ctx context.Context, c *crowd, name string, more map[string]any, want target) error {
	c.stop()
	settings := map[string]any{"spool.sweep": "1m"}
	for k, v := range more {
		settings[k] = v
	}
	if err := c.settings(setup{settings: settings}); err != nil {
		return err
	}
	if err := c.launch(ctx); err != nil {
		return err
	}
	if err := until(ctx, 100*time.Millisecond, "a sweep begins", func() (bool, error) {
		m, err := c.counters(ctx)
		return m["delivery_swept_total"] > 0, err
	}); err != nil {
		return err
	}
	// The next one comes after the usual time.
	settings["spool.sweep"] = "4h"
	if err := c.settings(setup{settings: settings}); err != nil {
		return err
	}
	began := time.Now()
	before, err := c.group().cpu()
	if err != nil {
		return err
	}
	profiled := b.profile(c.bsmtpd, 0, 10*time.Second)
	most := watchMemory(c.group(), time.Second)
	defer most()
	var sessions float64
	sockets := 0
	err = until(ctx, 100*time.Millisecond, "all were tried", func() (bool, error) {
		m, err := c.counters(ctx)
		sessions = max(sessions, m["delivery_running"])
		sockets = max(sockets, openFiles(c.pid()))
		return m["delivery_sessions_total"] >= float64(c.size) && m["delivery_running"] == 0, err
	})
	took := time.Since(began)
	memory := most()
	profiled()
	if err != nil {
		return err
	}
	after, err := c.group().cpu()
	add := func(what, unit string, value float64, want target) {
		b.figures = append(b.figures, figure{Name: name + ": " + what, Unit: unit, Bsmtpd: []float64{value}, Target: want})
	}
	add("time", "s", took.Seconds(), want)
	add("CPU", "s", (after - before).Seconds(), target{})
	add("sessions at one time", "", sessions, target{})
	add("open files at one time", "", float64(sockets), target{})
	add("most memory, RSS", "MiB", mib(memory.rss), target{})
	return err
}

// pid of the program itself.
func (s *bsmtpd) pid() int { return s.run.cmd.Process.Pid }

func openFiles(pid int) int {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(d)
}
