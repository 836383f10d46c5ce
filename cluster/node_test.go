package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// world is a node on a disk in memory that can lose what was not synced.
type world struct {
	t    *testing.T
	disk *vfs.MemFS
	node *Node
	fail chan error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, disk: vfs.NewCrashableMem()}
	w.start(false)
	return w
}

func (w *world) options(init bool) (host.Host, Options) {
	w.fail = make(chan error, 1)
	h := host.Host{FS: host.MadeFS(w.disk), Rand: func(string) *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }}
	return h, Options{Dir: "/data", Node: "n1", Init: init, Settings: DefaultSettings(), Registry: metric.New(),
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { w.fail <- err }}
}

func (w *world) start(init bool) {
	w.t.Helper()
	n, err := Open(w.options(init))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.node = n
}

// crash stops the node as a power cut would: of what was not synced, a random
// part is kept.
func (w *world) crash(seed uint64) {
	w.t.Helper()
	after := w.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 7))})
	w.node.Close() // the old world goes on without anybody looking
	w.disk = after
}

func (w *world) account(login string, quota int64) {
	w.t.Helper()
	puts, err := w.node.PutAccounts(w.t.Context(), directory.PutAccounts{By: "test", Items: []directory.PutAccount{
		{Account: directory.Account{Login: mail.Login(login), Quota: quota}}}})
	if err != nil || puts[0].Err() != nil {
		w.t.Fatal(err, puts)
	}
}

func (w *world) mail(body string, logins ...string) (spool.Enqueued, error) {
	m := spool.Enqueue{Envelope: mail.Envelope{From: "sender@example.net"}, Size: int64(len(body))}
	for _, l := range logins {
		m.Targets = append(m.Targets, spool.Target{Queue: spool.AccountQueue(mail.Login(l)),
			To: []mail.Recipient{{Address: mail.Address("info@" + l + ".example")}}})
	}
	return w.node.Enqueue(w.t.Context(), m, strings.NewReader(body))
}

func (w *world) body(queue spool.QueueName, id mail.ID) string {
	w.t.Helper()
	m, ok, err := w.node.Spool().Message(queue, id)
	if err != nil || !ok {
		w.t.Fatalf("message %s is not in queue %s: %v", id, queue, err)
	}
	r, err := w.node.Spool().Body(m.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestAcknowledgedMailSurvivesPowerCuts(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<30)
	type sent struct {
		id   mail.ID
		body string
	}
	var ledger []sent
	rng := rand.New(rand.NewPCG(3, 4))
	for cut := range uint64(6) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 20 {
			size := 1 + rng.IntN(9000)
			if i == 0 {
				size = spool.ChunkBytes*2 + rng.IntN(1000) // staged
			}
			body := fmt.Sprintf("%d/%d %s", cut, i, bytes.Repeat([]byte{byte('a' + i)}, size))
			wg.Go(func() {
				got, err := w.mail(body, "jansen")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				ledger = append(ledger, sent{got.ID, body})
			})
		}
		wg.Wait()
		if cut == 2 {
			w.node.snapshot()
		}
		w.crash(cut)
		w.start(false)
		for _, s := range ledger {
			if w.body("account/jansen", s.id) != s.body {
				t.Fatalf("after cut %d: the body of %s has changed", cut, s.id)
			}
		}
	}
	var bytesHeld int64
	for _, s := range ledger {
		bytesHeld += int64(len(s.body))
	}
	u, err := w.node.Quota().Of("jansen")
	if err != nil || u.Bytes != bytesHeld || u.Messages != int64(len(ledger)) {
		t.Errorf("usage %+v, %v; want %d bytes in %d messages", u, err, bytesHeld, len(ledger))
	}
	w.node.Close()
}

func TestANodeRefusesDirectoriesThatAreNotItsOwn(t *testing.T) {
	w := newWorld(t)
	if _, err := w.mail("x", "nobody"); err != nil {
		t.Fatal(err)
	}
	w.node.Close()
	for _, c := range []struct {
		name, want string
		change     func(fs vfs.FS)
	}{
		{"an empty directory", "there but empty", func(fs vfs.FS) { fs.RemoveAll("/data"); fs.MkdirAll("/data", 0o700) }},
		{"another program's directory", "not one of bsmtpd's", func(fs vfs.FS) { fs.Remove("/data/identity.json") }},
		{"another node's directory", `belongs to node "n2"`, func(fs vfs.FS) {
			host.WriteFile(fs, "/data/identity.json", []byte(`{"cluster":"c","node":"n2","ready":true}`))
		}},
		{"a lost log", "lacks its folder log", func(fs vfs.FS) { fs.RemoveAll("/data/log") }},
		{"a lost state", "lacks its folder state", func(fs vfs.FS) { fs.RemoveAll("/data/state") }},
		{"an emptied state", "state", func(fs vfs.FS) { fs.RemoveAll("/data/state"); fs.MkdirAll("/data/state", 0o700) }},
		{"an emptied log", "the log", func(fs vfs.FS) { fs.RemoveAll("/data/log"); fs.MkdirAll("/data/log", 0o700) }},
		{"a lost log meta file", "missing beside log segments", func(fs vfs.FS) { fs.Remove("/data/log/meta") }},
		{"a torn identity", "is damaged", func(fs vfs.FS) { host.WriteFile(fs, "/data/identity.json", []byte(`{"clus`)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &world{t: t, disk: w.disk.CrashClone(vfs.CrashCloneCfg{})}
			c.change(v.disk)
			n, err := Open(v.options(false))
			if err == nil {
				n.Close()
				t.Fatal("the node started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
	v := &world{t: t, disk: vfs.NewCrashableMem()}
	v.disk.MkdirAll("/data", 0o700)
	v.start(true) // with --init an empty directory is meant
	v.node.Close()
}

func TestQuotaIsExactHoweverManySend(t *testing.T) {
	w := newWorld(t)
	defer func() { w.node.Close() }()
	w.account("jansen", 10_000)
	var wg sync.WaitGroup
	var mu sync.Mutex
	kept := 0
	for range 40 {
		wg.Go(func() {
			got, err := w.mail(strings.Repeat("x", 999), "jansen")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if got.ID != 0 {
				kept++
			} else if r := got.Targets[0]; r.Refusal != spool.OverQuota || r.Quota != 10_000 {
				t.Errorf("refused with %+v", r)
			}
		})
	}
	wg.Wait()
	if u, _ := w.node.Quota().Of("jansen"); kept != 10 || u.Bytes != 9990 {
		t.Errorf("%d messages kept, usage %+v; want 10 of 999 bytes in 10,000", kept, u)
	}
}

func TestAFailingDiskStopsTheNodeAndAcknowledgesNothing(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	w.node.Close()
	broken := &failingFS{FS: host.MadeFS(w.disk)}
	h, o := w.options(false)
	h.FS = broken
	n, err := Open(h, o)
	if err != nil {
		t.Fatal(err)
	}
	w.node = n
	if err := n.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.mail("before", "jansen"); err != nil {
		t.Fatal(err)
	}
	broken.fail.Store(true)
	if got, err := w.mail("after", "jansen"); err == nil {
		t.Errorf("mail was acknowledged as %s on a disk that fails", got.ID)
	}
	select {
	case <-w.fail:
	case <-time.After(10 * time.Second):
		t.Error("nobody was told that the disk failed")
	}
	if _, err := w.mail("later", "jansen"); mail.KindOf(err) != mail.Unavailable {
		t.Errorf("a stopped node answers %v, want unavailable", err)
	}
	n.Close()
}
