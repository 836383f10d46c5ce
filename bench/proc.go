package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clockTick is the unit of CPU time in /proc on Linux, on all machines with Go.
const clockTick = time.Second / 100

// stat is what /proc/PID/stat says of a process.
type stat struct {
	parent int
	cpu    time.Duration // its own
	ended  time.Duration // of its children that have ended
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name stands in parentheses and may hold anything.
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	n := func(i int) int { v, _ := strconv.Atoi(f[i]); return v }
	return stat{
		parent: n(1),
		cpu:    time.Duration(n(11)+n(12)) * clockTick,
		ended:  time.Duration(n(13)+n(14)) * clockTick,
	}, nil
}

// tree is a process and all that come from it.
func tree(root int) []int {
	if _, err := readStat(root); root == 0 || err != nil {
		return nil
	}
	children := map[int][]int{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			if s, err := readStat(pid); err == nil {
				children[s.parent] = append(children[s.parent], pid)
			}
		}
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

func (g *group) treeCPU() (time.Duration, error) {
	var sum time.Duration
	pids := tree(g.root)
	for _, pid := range pids {
		if s, err := readStat(pid); err == nil {
			sum += s.cpu + s.ended
		}
	}
	if len(pids) == 0 {
		return 0, fmt.Errorf("process %d is gone", g.root)
	}
	return sum, nil
}

// memory is what processes hold, in bytes.
type memory struct {
	pss       int64 // their own pages, and their share of those that several use
	rss       int64
	processes int
}

func (g *group) memory() memory {
	var m memory
	for _, pid := range g.pids() {
		if pss, ok := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:"); ok {
			m.pss += pss
			m.processes++
		}
		rss, _ := field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
		m.rss += rss
	}
	return m
}

// field is a size in a file of lines "Name: N kB", in bytes.
func field(file, name string) (int64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// watchMemory looks at a group every step until stop is called, which gives the
// most that was seen of each. stop may be called again.
func watchMemory(g *group, step time.Duration) (stop func() memory) {
	end, done := make(chan struct{}), make(chan memory)
	go func() {
		var most memory
		t := time.NewTicker(step)
		defer t.Stop()
		for {
			m := g.memory()
			most.pss, most.rss, most.processes = max(most.pss, m.pss), max(most.rss, m.rss), max(most.processes, m.processes)
			select {
			case <-t.C:
			case <-end:
				done <- most
				return
			}
		}
	}()
	return sync.OnceValue(func() memory { close(end); return <-done })
}

// diskUse is what a directory takes on the disk, in bytes.
func diskUse(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // files come and go while we look
		}
		if i, err := d.Info(); err == nil {
			if s, ok := i.Sys().(*syscall.Stat_t); ok {
				sum += s.Blocks * 512
			}
		}
		return nil
	})
	return sum, err
}

// files counts the regular files below directories.
func files(dirs ...string) int {
	n := 0
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				n++
			}
			return nil
		})
	}
	return n
}
