package config

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"time"
)

// How the file is watched.
const (
	settle = 200 * time.Millisecond // an editor writes in several steps: wait until it is quiet
	look   = time.Minute            // a hint of the file system can be lost
)

// Watcher reads the configuration again when it changes.
type Watcher struct {
	o       Options
	log     *slog.Logger
	running *Config // what the parts of the node work with
	pending []string
	failed  string // the last error, so that it is logged once
	poke    chan struct{}
}

// NewWatcher watches what running was loaded from.
func NewWatcher(o Options, running *Config, log *slog.Logger) *Watcher {
	return &Watcher{o: o, log: log, running: running, poke: make(chan struct{}, 1)}
}

// Reload reads the configuration now, and says in the log what came of it even
// when nothing has changed: for SIGHUP. It does not wait.
func (w *Watcher) Reload() {
	select {
	case w.poke <- struct{}{}:
	default: // one is already on its way
	}
}

// Watch calls onChange, one call at a time, when keys have another value than
// the running configuration: the file changed, was replaced, or a secret file
// did. It returns when ctx ends.
//
// The new configuration holds the new values of the changed keys that can be
// taken live; what stands in needRestart still has its old value there, since
// that is what the node goes on with. onChange may not change it. A
// configuration with mistakes is logged and changes nothing.
func (w *Watcher) Watch(ctx context.Context, onChange func(new *Config, changed, needRestart []string)) error {
	var changed <-chan struct{}
	if w.o.File != "" {
		hint, stop, err := w.o.FS.Watch(filepath.Dir(w.o.File))
		if err != nil {
			w.log.Warn("configuration file is not watched; it is looked at every minute and on SIGHUP", "file", w.o.File, "error", err)
		} else {
			defer stop.Close()
			changed = hint
		}
	}
	timer := time.NewTimer(settle) // the file may have changed since it was loaded
	defer timer.Stop()
	settling := false // the timer runs for the sake of a hint; later hints do not put it off
	for {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
			if !settling {
				settling = true
				timer.Reset(settle)
			}
			continue
		case <-timer.C:
		case <-w.poke:
			asked = true
		}
		settling = false
		timer.Reset(look)
		w.again(asked, onChange)
	}
}

func (w *Watcher) again(asked bool, onChange func(*Config, []string, []string)) {
	fresh, err := Load(w.o)
	if err != nil {
		if asked || err.Error() != w.failed {
			w.failed = err.Error()
			w.log.Error("configuration has mistakes; the old one stays in force", "file", w.o.File, "error", err)
		}
		return
	}
	if w.failed != "" {
		w.failed = ""
		w.log.Info("configuration is good again", "file", w.o.File)
	}
	next, live, restart := merge(w.running, fresh)
	switch {
	case len(live) > 0:
		w.log.Info("configuration changed", "file", w.o.File, "changed", live)
	case asked && len(restart) == 0:
		w.log.Info("configuration read again: nothing has changed", "file", w.o.File)
	}
	news := !slices.Equal(restart, w.pending)
	if len(restart) > 0 && (asked || news) {
		w.log.Warn("configuration keys changed that need a restart", "file", w.o.File, "keys", restart)
	}
	w.pending = restart
	if len(live) > 0 {
		w.running = next
	}
	if len(live) > 0 || news {
		onChange(next, live, restart)
	}
}

// merge is old with the live keys of fresh, and the paths of the keys that
// differ: taken over, and left.
func merge(old, fresh *Config) (next *Config, live, restart []string) {
	c := *old
	next = &c
	from, to := reflect.ValueOf(fresh).Elem(), reflect.ValueOf(next).Elem()
	for _, sec := range configSchema.sections {
		for _, k := range sec.keys {
			a, b := to.FieldByIndex(k.index), from.FieldByIndex(k.index)
			switch {
			case reflect.DeepEqual(a.Interface(), b.Interface()):
			case k.reload:
				a.Set(b)
				live = append(live, k.path)
			default:
				restart = append(restart, k.path)
			}
		}
	}
	return next, live, restart
}
