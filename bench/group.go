package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// group is a server's processes with all their children, also those that have
// ended. Control groups count them well; where they cannot be made the process
// tree is read from /proc, and children whose parent is gone are lost from sight.
type group struct {
	dir  string // of the control group; empty: there is none
	v2   bool
	root int // the first process
}

// newGroup makes a control group below our own, for CPU accounting: version 2, or
// cpuacct of version 1.
func newGroup(name string) *group {
	own, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			if c == "cpuacct" {
				if g := makeGroup("/sys/fs/cgroup/"+parts[1], parts[2], name, "cpuacct.usage"); g != nil {
					return g
				}
			}
		}
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if g := makeGroup("/sys/fs/cgroup", path, name, "cpu.stat"); g != nil {
				g.v2 = true
				return g
			}
		}
	}
	return &group{}
}

func makeGroup(mount, own, name, file string) *group {
	dir := filepath.Join(mount, own, fmt.Sprintf("bsmtpd-bench-%d-%s", os.Getpid(), name))
	if os.Mkdir(dir, 0o755) != nil {
		return nil
	}
	g := &group{dir: dir}
	if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
		g.remove()
		return nil
	}
	return g
}

// command is a process that will be the group's first.
func (g *group) command(path string, args ...string) *exec.Cmd {
	if g.dir == "" {
		return exec.Command(path, args...)
	}
	join := append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs"), path}, args...)
	return exec.Command("/bin/sh", join...)
}

// cpu is the time that all processes used so far, user and system.
func (g *group) cpu() (time.Duration, error) {
	switch {
	case g.dir == "":
		return g.treeCPU()
	case !g.v2:
		b, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(n), err
	}
	b, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", g.dir)
}

// pids are the processes that live.
func (g *group) pids() []int {
	if g.dir == "" {
		return tree(g.root)
	}
	b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	var out []int
	for _, word := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// end makes what is left of the group end, and removes the control group.
func (g *group) end() {
	if g.dir == "" && g.root == 0 {
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for range 100 {
			pids := g.pids()
			if len(pids) == 0 {
				g.remove()
				return
			}
			for _, pid := range pids {
				syscall.Kill(pid, sig)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	g.remove()
}

// remove the control group; right after the end of its processes the kernel may
// still call it busy.
func (g *group) remove() {
	for range 50 {
		if g.dir == "" || os.Remove(g.dir) == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	g.dir, g.root = "", 0
}
