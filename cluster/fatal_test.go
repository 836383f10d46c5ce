package cluster

import (
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bsmtpd/host"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fatalFS fails where pebble cannot go on: at its list of files.
type fatalFS struct {
	host.FS
	fail atomic.Bool
}

func (f *fatalFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err != nil || !strings.HasPrefix(path.Base(name), "MANIFEST") {
		return file, err
	}
	return &fatalFile{file, f}, nil
}

type fatalFile struct {
	vfs.File
	fs *fatalFS
}

func (f *fatalFile) Sync() error {
	if f.fs.fail.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}

// After such an error pebble's locks are held for ever. The node must still come
// to its end, or nobody starts it again.
func TestANodeWhoseRowsHaveFailedCanBeClosed(t *testing.T) {
	for name, when := range map[string]func(w *world){
		"in a snapshot": func(w *world) {
			w.node.fsm.due <- struct{}{}
			<-w.fail
		},
		"while it is closed": func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.account("jansen", 1<<20)
			broken := &fatalFS{}
			w.on(func(h *host.Host, _ *Options) { broken.FS, h.FS = h.FS, broken })
			got, err := w.mail("kept", "jansen")
			if err != nil {
				t.Fatal(err)
			}
			broken.fail.Store(true)
			when(w)
			closed := make(chan error, 1)
			go func() { closed <- w.node.Close() }()
			select {
			case err := <-closed:
				if err == nil {
					t.Error("closing says that all is well")
				}
			case <-time.After(30 * time.Second):
				t.Fatal("closing never ends")
			}
			if _, err := w.mail("late", "jansen"); mail.KindOf(err) != mail.Unavailable {
				t.Errorf("a failed node answers %v, want unavailable", err)
			}
			w.disk = w.disk.CrashClone(vfs.CrashCloneCfg{})
			w.start(false)
			if b := w.body("account/jansen", got.ID); b != "kept" {
				t.Errorf("after the restart the message is %q", b)
			}
			w.node.Close()
		})
	}
}

// Whoever opens a directory is told, also where pebble would end the process.
func TestADirectoryWhoseRowsFailWhileTheyAreOpenedIsRefused(t *testing.T) {
	w := &world{t: t, disk: vfs.NewCrashableMem()}
	h, o := w.options(false)
	broken := &fatalFS{FS: h.FS}
	broken.fail.Store(true)
	h.FS = broken
	opened := make(chan error, 1)
	go func() {
		defer close(opened) // runs also where the goroutine is ended
		_, err := Open(h, o)
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil {
			t.Error("Open did not return with an error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("opening never ends")
	}
}
