package bounce

import (
	"testing"
	"testing/synctest"
	"time"
)

// A server that does not know its own name can tell nobody anything. That is put
// right by its operator; until then nothing that is owed may be dropped.
func TestAServerWithoutANameKeepsWhatItOwes(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.s.d.Hostname = "not a name"
		w.Owes("anna@example.org")
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.Left() != 1 || len(w.waived) != 0 {
			t.Errorf("%d rows are left, %d were dropped", w.Left(), len(w.waived))
		}
	})
}
