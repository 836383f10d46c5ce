package node

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// gate is a writer whose writes take until it is opened.
type gate struct {
	mu     sync.Mutex
	got    bytes.Buffer
	writes int
	open   chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	return g.got.Write(p)
}

func TestLinesShareAWriteWhileOneIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		l := NewLineWriter(g)
		var want strings.Builder
		for i := range 100 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			fmt.Fprint(l, line)
			synctest.Wait() // the first is on its way before the second comes
		}
		close(g.open)
		if l.Close(); g.got.String() != want.String() {
			t.Errorf("got %q", g.got.String())
		}
		if g.writes != 2 {
			t.Errorf("%d writes; want one for the first line and one for the rest", g.writes)
		}
		fmt.Fprint(l, "after\n")
		if !strings.HasSuffix(g.got.String(), "after\n") {
			t.Error("a line after Close is lost")
		}
	})
}

func TestWhoeverLogsWaitsWhenTooMuchIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		l := NewLineWriter(g)
		fmt.Fprint(l, "first\n")
		synctest.Wait()
		fmt.Fprint(l, strings.Repeat("x", maxPendingLog))
		wrote := make(chan struct{})
		go func() {
			fmt.Fprint(l, "last\n")
			close(wrote)
		}()
		synctest.Wait()
		select {
		case <-wrote:
			t.Error("a line was taken past the bound")
		default:
		}
		close(g.open)
		<-wrote
		l.Close()
		if !strings.HasSuffix(g.got.String(), "xlast\n") {
			t.Error("the last line is lost")
		}
	})
}
