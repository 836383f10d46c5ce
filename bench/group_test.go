package main

import (
	"os/exec"
	"testing"
	"time"
)

// Without control groups a server and its children are found by their parents.
func TestATreeOfProcessesIsCountedAndEnded(t *testing.T) {
	if _, err := readStat(1); err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	g := &group{}
	r, err := begin(exec.Command("/bin/sh", "-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; sleep 60 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	g.root = r.cmd.Process.Pid
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		used, err := g.cpu()
		if err != nil {
			t.Fatal(err)
		}
		if used > 0 && len(g.pids()) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of CPU in %d processes", used, len(g.pids()))
		}
	}
	if m := g.memory(); m.processes != 2 || m.pss == 0 || m.rss < m.pss {
		t.Errorf("memory %+v", m)
	}
	g.end()
	select {
	case <-r.gone:
	case <-time.After(10 * time.Second):
		t.Error("the process lives")
	}
}
