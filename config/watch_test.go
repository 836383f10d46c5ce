package config

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/host"
)

// noWatch has no hints.
type noWatch struct{ memFS }

func (noWatch) Watch(string) (<-chan struct{}, io.Closer, error) {
	return nil, nil, fmt.Errorf("not supported")
}

// hints lets a test say that the directory has changed.
type hints struct {
	memFS
	c chan struct{}
}

func (h hints) Watch(string) (<-chan struct{}, io.Closer, error) { return h.c, io.NopCloser(nil), nil }

// watching is a watcher at work, and what it told.
type watching struct {
	t    *testing.T
	fs   hints
	w    *Watcher
	log  bytes.Buffer
	told []string
	last *Config
}

func watchFile(t *testing.T, text string) *watching {
	w := &watching{t: t, fs: hints{fsWith(t, "c.yaml", text).(noWatch).memFS, make(chan struct{}, 1)}}
	o := Options{FS: w.fs, File: "c.yaml"}
	running, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	w.w = NewWatcher(o, running, slog.New(slog.NewTextHandler(&w.log, nil)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- w.w.Watch(ctx, func(c *Config, changed, restart []string) {
			w.last = c
			w.told = append(w.told, fmt.Sprint(changed, restart))
		})
	}()
	t.Cleanup(func() { stop(); <-done })
	synctest.Wait()
	return w
}

func (w *watching) write(text string) {
	w.t.Helper()
	if err := host.WriteFile(w.fs, "c.yaml", []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watching) hint() { w.fs.c <- struct{}{} }

func (w *watching) settle() { time.Sleep(2 * settle) }

func (w *watching) expect(told ...string) {
	w.t.Helper()
	synctest.Wait()
	if fmt.Sprint(w.told) != fmt.Sprint(told) {
		w.t.Errorf("told %q, want %q\nlog:\n%s", w.told, told, w.log.String())
	}
	w.told = nil
}

func TestAChangedFileTakesEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "spool: {retry: 20m}\n")
		w.write("spool: {retry: 10m}\nnode: {name: other}\n")
		w.hint()
		w.settle()
		w.expect("[spool.retry] [node.name]")
		if w.last.Spool.Retry != 10*time.Minute || w.last.Node.Name != "node1" {
			t.Errorf("retry %v, name %s: want the new one of what is live, the old one of the rest", w.last.Spool.Retry, w.last.Node.Name)
		}
		w.write("spool: {retry: 10m}\nnode: {name: node1}\n")
		w.hint()
		w.settle()
		w.expect("[] []") // no restart is needed any more
	})
}

func TestABadFileChangesNothingAndIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "spool: {retry: 20m}\n")
		w.write("spool: {retry: soon}\n")
		for range 3 {
			w.hint()
			w.settle()
		}
		w.expect()
		if n := strings.Count(w.log.String(), "c.yaml:1: spool.retry"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, w.log.String())
		}
		w.write("spool: {retry: 5m}\n")
		w.hint()
		w.settle()
		w.expect("[spool.retry] []")
	})
}

func TestALostHintIsMadeUpForWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "")
		w.settle()
		w.write("quota: {default: 30MiB}\n")
		time.Sleep(look + time.Second)
		w.expect("[quota.default] []")
	})
}

func TestABusyDirectoryDoesNotPutTheReloadOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "")
		w.write("quota: {default: 30MiB}\n")
		for range 10 {
			w.hint()
			time.Sleep(settle / 4)
		}
		w.expect("[quota.default] []")
	})
}

func TestReloadOnRequestAlwaysAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "")
		w.w.Reload()
		synctest.Wait()
		w.expect()
		if !strings.Contains(w.log.String(), "nothing has changed") {
			t.Errorf("log: %s", w.log.String())
		}
	})
}

func TestAChangeBeforeTheWatchBeganIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, "smtpd: {max_message: 1MB}\n")
		w.write("smtpd: {max_message: 2MB}\n") // and no hint comes
		w.settle()
		w.expect("[smtpd.max_message] []")
	})
}
