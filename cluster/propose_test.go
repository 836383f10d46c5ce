package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

// slowFS lets no sync of a log segment return while it is stalled.
type slowFS struct {
	host.FS
	mu    sync.Mutex // guards stalled
	stall chan struct{}
}

// stalled stops the disk; the function it returns lets it go on.
func (s *slowFS) stalled() (release func()) {
	c := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall = c
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.stall = nil
		s.mu.Unlock()
		close(c)
	})
}

func (s *slowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := s.FS.OpenReadWrite(name, c, o...)
	if err != nil || !strings.HasSuffix(name, walSuffix) {
		return file, err
	}
	return &slowFile{file, s}, nil
}

type slowFile struct {
	vfs.File
	fs *slowFS
}

func (f *slowFile) SyncData() error {
	f.fs.mu.Lock()
	c := f.fs.stall
	f.fs.mu.Unlock()
	if c != nil {
		<-c
	}
	return f.File.SyncData()
}

// on starts the world's node again with changed options.
func (w *world) on(change func(*host.Host, *Options)) {
	w.t.Helper()
	w.node.Close()
	h, o := w.options(false)
	change(&h, &o)
	n, err := Open(h, o)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := n.WaitReady(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.node = n
}

func TestAProposalThatWaitsTooLongIsUnavailable(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &slowFS{}
	w.on(func(h *host.Host, o *Options) { disk.FS, h.FS = h.FS, disk; o.ApplyTimeout = 300 * time.Millisecond })
	release := disk.stalled()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.node.Claim(ctx, spool.Claim{Queue: "account/jansen"}); mail.KindOf(err) != mail.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's time is over: %v, want unavailable", err)
	}
	if _, err := w.mail("perhaps", "jansen"); mail.KindOf(err) != mail.Unavailable {
		t.Errorf("the node's time is over: %v, want unavailable", err)
	}
	release()
	if _, err := w.mail("surely", "jansen"); err != nil {
		t.Errorf("the disk is back: %v", err)
	}
	if u, _ := w.node.Quota().Of("jansen"); u.Messages != 1 && u.Messages != 2 {
		t.Errorf("%d messages are kept; one is sure, one is open", u.Messages)
	}
	if err := w.node.Close(); err != nil {
		t.Error(err)
	}
}

func TestClosingEndsAllWhoWait(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := newWorld(t)
	w.account("jansen", 1<<20)
	disk := &slowFS{}
	w.on(func(h *host.Host, o *Options) { disk.FS, h.FS = h.FS, disk; o.ApplyTimeout = time.Hour })
	release := disk.stalled()
	var waiting sync.WaitGroup
	errs := make(chan error, 100)
	for range cap(errs) {
		waiting.Go(func() {
			_, err := w.mail("x", "jansen")
			errs <- err
		})
	}
	time.Sleep(50 * time.Millisecond) // let them reach the log
	closed := make(chan error)
	go func() { closed <- w.node.Close() }()
	all := make(chan struct{})
	go func() { waiting.Wait(); close(errs); close(all) }()
	select {
	case <-all: // although the disk does not move
	case <-time.After(20 * time.Second):
		t.Error("closing left proposals waiting")
		release()
	}
	for err := range errs {
		if mail.KindOf(err) != mail.Unavailable {
			t.Errorf("who waited is told %v, want unavailable", err)
		}
	}
	release()
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := w.mail("late", "jansen"); mail.KindOf(err) != mail.Unavailable {
		t.Errorf("a closed node answers %v, want unavailable", err)
	}
}

func TestRowsCanBeReadWhenTheirEffectArrives(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	var mu sync.Mutex
	var node *Node
	seen := map[int64]bool{}
	w.on(func(_ *host.Host, o *Options) {
		o.Effects = func(effects []spool.Effect) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range effects {
				q, ok, err := node.Spool().Queue(e.Queue)
				if e.Kind != spool.EffectDue || err != nil || !ok || q.Next == 0 {
					t.Errorf("effect %+v came before its rows: %+v, %v", e, q, err)
				}
				seen[q.Messages] = true
			}
		}
	})
	mu.Lock()
	node = w.node
	mu.Unlock()
	for range 5 {
		if _, err := w.mail("x", "jansen"); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	if len(seen) != 5 {
		t.Errorf("effects showed queues of %v messages, want 1 to 5", seen)
	}
	mu.Unlock()
	w.node.Close()
}

// A command that is in the log must be one that can be read: the log brings it
// again at every start.
func TestACommandThatIsTooLargeDoesNotReachTheLog(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	act := spool.Act{Action: spool.ActRetry, By: "op"}
	for i := range 1 << 18 {
		act.Items = append(act.Items, spool.Item{Queue: "account/jansen", ID: mail.ID(i)})
	}
	if _, err := w.node.Act(t.Context(), act); mail.KindOf(err) != mail.Invalid {
		t.Errorf("an action on %d messages: %v, want invalid", len(act.Items), err)
	}
	aliases := directory.Account{Login: "aliases", Aliases: make([]string, 1<<18)}
	if _, err := w.node.PutAccounts(t.Context(), directory.PutAccounts{Items: []directory.PutAccount{{Account: aliases}}}); mail.KindOf(err) == mail.Other {
		t.Errorf("an account with %d aliases: %v", len(aliases.Aliases), err)
	}
	if err := w.node.Failed(); err != nil {
		t.Errorf("the node failed: %v", err)
	}
	w.node.Close()
	w.start(false)
	w.node.Close()
}

// Who reads the audit must see what was asked for, not only how much it was.
func TestTheAuditSaysHowMessagesWereChosen(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	if _, err := w.mail("x", "jansen"); err != nil {
		t.Fatal(err)
	}
	act := spool.Act{Action: spool.ActHold, By: "op", Filter: "sender=@spam.example"}
	var err error
	for m := range w.node.Spool().Across(spool.Item{}, &err) {
		act.Items = append(act.Items, spool.Item{Queue: m.Queue, ID: m.ID})
	}
	if _, aerr := w.node.Act(t.Context(), act); aerr != nil || err != nil {
		t.Fatal(aerr, err)
	}
	found := false
	for r := range w.node.Directory().Audit(0, &err) {
		found = found || r.Action == "queue hold" && r.Object == "1 messages of sender=@spam.example"
	}
	if !found || err != nil {
		t.Errorf("no record names the filter (%v)", err)
	}
	w.node.Close()
}

// Another server's words come in any encoding.
func TestWordsInLatin1DoNotStopTheNode(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	if _, err := w.mail("x", "jansen"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.node.Claim(t.Context(), spool.Claim{Queue: "account/jansen", Session: 1, Until: mail.At(time.Now().Add(time.Hour))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.node.Finish(t.Context(), spool.Finish{Queue: "account/jansen", Session: 1, Outcome: spool.OutcomeFailed, Words: "bo\xeete pleine"}); err != nil {
		t.Fatal(err)
	}
	w.crash(1)
	w.start(false)
	if q, _, err := w.node.Spool().Queue("account/jansen"); err != nil || q.LastWords != "bo\xeete pleine" {
		t.Errorf("the words are %q, %v", q.LastWords, err)
	}
	w.node.Close()
}
