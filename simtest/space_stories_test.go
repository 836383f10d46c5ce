package simtest

import (
	"strings"
	"testing"
	"time"
)

// C13: below the soft mark new mail is refused with 452 and the reason, and what
// is queued still goes out; with space again, mail is taken again.
func TestADiskThatIsAlmostFullRefusesNewMailAndDrains(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.journal.excuse("space is short")
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(2)
		w.DiskFree(uint64(w.Config.Node.LowSpace.SoftBytes) - 1)
		w.Sleep(time.Minute)
		l := w.TryMail(1)[0]
		if !strings.HasPrefix(l.Said(), "452 4.3.1") || !strings.Contains(l.Said(), "short of space") {
			t.Errorf("the letter was answered %q", l.Said())
		}
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(time.Second)
		w.Delivered("jansen", letters...)
		w.DiskFree(diskBytes / 2)
		w.Sleep(time.Minute)
		letters = append(letters, w.Mail(1)...)
		w.Sleep(time.Second)
		w.Delivered("jansen", letters...)
	})
}

// C13: below the hard mark the node refuses mail with 421, is not ready and begins
// no push; then it goes on where it was.
func TestADiskThatIsFullStopsTheWork(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.journal.excuse("space is short")
		w.Account("jansen")
		w.Offline("jansen")
		letters := w.Mail(2)
		w.watch.off = true
		w.DiskFree(uint64(w.Config.Node.LowSpace.HardBytes) - 1)
		w.Sleep(time.Minute)
		l := w.TryMail(1)[0]
		if !strings.HasPrefix(l.Said(), "421 4.3.2") || !strings.Contains(l.Said(), "out of space") {
			t.Errorf("the letter was answered %q", l.Said())
		}
		if why := strings.Join(w.Node().NotReady(), ", "); !strings.Contains(why, "out of space") {
			t.Errorf("the node is ready: %q", why)
		}
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(time.Hour)
		w.Delivered("jansen")
		w.DiskFree(diskBytes / 2)
		w.Sleep(time.Minute)
		w.Delivered("jansen", letters...)
	})
}
