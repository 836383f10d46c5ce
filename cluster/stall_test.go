package cluster

import (
	"sync"
	"testing"
	"time"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// While the disk stands still clients give up and come again. What they left
// behind still takes memory, and must count; and when the disk goes on it is not
// kept beside what they sent since.
func TestWhatNobodyWaitsForAnyMoreStillCountsAndIsNotKept(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &slowFS{}
	w.on(func(h *host.Host, o *Options) { disk.FS, h.FS = h.FS, disk; o.ApplyTimeout = 200 * time.Millisecond })
	release := disk.stalled()
	defer release()
	chunk := make([]byte, spool.ChunkBytes)
	const wave = maxProposalBytes/spool.ChunkBytes + 50
	for range 4 {
		var clients sync.WaitGroup
		for range wave {
			clients.Go(func() {
				_, err := propose[spool.Staged](t.Context(), w.node, kindStage, spool.Stage{}, chunk)
				if k := mail.KindOf(err); k != mail.Unavailable && k != mail.Limit {
					t.Errorf("on a disk that stands still: %v", err)
				}
			})
		}
		clients.Wait()
		if held := len(w.node.proposer.in) * spool.ChunkBytes; held > maxProposalBytes {
			t.Fatalf("%d bytes wait to be committed, at most %d", held, maxProposalBytes)
		}
	}
	if len(w.node.proposer.in) == 0 {
		t.Fatal("nothing waits: the test sees nothing")
	}
	release()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := w.mail("again", "jansen"); err == nil {
			break
		} else if time.Since(began) > 20*time.Second {
			t.Fatalf("the disk goes on, and mail is refused: %v", err)
		}
	}
	staged := 0
	var err error
	for range w.node.Rows().Scan([]byte("g/"), []byte("g0"), &err) {
		staged++
	}
	if err != nil || staged > wave/2 {
		t.Errorf("%d chunks that were given up were kept: %v", staged, err)
	}
	if err := w.node.Close(); err != nil {
		t.Error(err)
	}
}
