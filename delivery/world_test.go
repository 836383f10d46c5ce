package delivery

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// world is a spool with real rows, moved by real moves without a log, and a made-up
// network. Its methods are what happens in a story.
type world struct {
	t   *testing.T
	net *memNet
	dns *memDNS
	dir *memDirectory
	reg *metric.Registry

	db     *kv.Store
	mu     sync.Mutex // guards what follows, and orders the moves
	index  uint64
	ahead  atomic.Int64 // how far machine time is ahead of the right time
	down   error        // what every command answers, while it is set
	hook   func(command any)
	pusher *Pusher
	cancel context.CancelFunc
	ended  chan struct{}
}

func testConfig() Config {
	return Config{Sessions: 50, SessionsPerNetwork: 0, MaxWaiting: 1000, ConnectionsPerAccount: 1, OutPort: 25,
		ConnectTimeout: 10 * time.Second, GreetingTimeout: time.Minute, CommandTimeout: 5 * time.Minute, DataTimeout: 10 * time.Minute,
		SessionLimit: time.Hour, MessageLimit: 6 * time.Hour, Linger: 200 * time.Millisecond, WindowMessages: 100, WindowBytes: 1 << 20,
		ClaimLife: 10 * time.Minute, ReportEvery: 50 * time.Millisecond, StopTimeout: 20 * time.Second, PixPause: 200 * time.Millisecond}
}

// story runs a test in a bubble with faked time.
func story(t *testing.T, tell func(t *testing.T, w *world), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change...)
		defer w.close()
		tell(t, w)
	})
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	db, err := kv.Open("/db", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 8 << 20, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, net: newMemNet(), dns: &memDNS{}, dir: &memDirectory{accounts: map[mail.Login]directory.Account{},
		domains: map[mail.Domain]directory.Domain{}}, reg: metric.New(), db: db, index: 100, ended: make(chan struct{})}
	cfg := testConfig()
	for _, c := range change {
		c(&cfg)
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	w.pusher = New(cfg, Deps{Host: w.host(), Self: Self{Node: "n1", Hostname: "bsmtp.example.net",
		Listening: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:25")} }},
		Spool: w, Rows: spool.Reader{R: db}, Directory: w.dir, Settings: spool.DefaultSettings, Now: w.now,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), MailLog: metric.NewMailLog(slog.New(slog.DiscardHandler)), Metrics: w.reg})
	w.start()
	return w
}

// now is what cluster.Node.Now gives.
func (w *world) now() mail.Time { return mail.At(time.Now().Add(time.Duration(w.ahead.Load()))) }

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(f) }

func (w *world) host() host.Host {
	return host.Host{Net: w.net, DNS: w.dns, Rand: func(string) *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }}
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() {
		w.pusher.Run(ctx)
		close(w.ended)
	}()
}

func (w *world) stop() {
	w.cancel()
	<-w.ended
}

func (w *world) close() {
	w.stop()
	for _, m := range w.dir.servers {
		m.close()
	}
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

// move applies one command and hands out its effects, as the cluster does.
func (w *world) move(command any, f func(*spool.Moves) error) error {
	w.mu.Lock()
	if w.hook != nil {
		w.hook(command)
	}
	if w.down != nil {
		defer w.mu.Unlock()
		return w.down
	}
	w.index++
	place := 0
	b := w.db.Begin()
	m := &spool.Moves{Tx: b, Now: w.now(), Set: spool.DefaultSettings(),
		NewID:  func() mail.ID { place++; return mail.NewID(w.index, place) },
		Charge: func(mail.Login, int64) (spool.TargetResult, error) { return spool.TargetResult{}, nil },
		Refund: func(mail.Login, int64, int64) error { return nil }}
	err := f(m)
	if err == nil {
		err = b.Commit()
	} else {
		b.Discard()
	}
	w.mu.Unlock()
	for _, e := range m.Effects {
		switch e.Kind {
		case spool.EffectDue:
			w.pusher.Wake(e.Queue, e.Cause)
		case spool.EffectStop:
			w.pusher.Stop(e.Queue)
		}
	}
	return err
}

func (w *world) Claim(_ context.Context, c spool.Claim) (r spool.ClaimResult, err error) {
	err = w.move(c, func(m *spool.Moves) (err error) { r, err = m.Claim(c); return })
	return
}

func (w *world) Settle(_ context.Context, c spool.Settle) (r spool.Settled, err error) {
	err = w.move(c, func(m *spool.Moves) (err error) { r, err = m.Settle(c); return })
	return
}

func (w *world) Finish(_ context.Context, c spool.Finish) (r spool.Finished, err error) {
	err = w.move(c, func(m *spool.Moves) (err error) { r, err = m.Finish(c); return })
	return
}

func (w *world) Sweep(_ context.Context, c spool.Sweep) (r spool.Swept, err error) {
	err = w.move(c, func(m *spool.Moves) (err error) { r, err = m.Sweep(c); return })
	return
}

func (w *world) Expire(_ context.Context, c spool.Expire) (r spool.Expired, err error) {
	err = w.move(c, func(m *spool.Moves) (err error) { r, err = m.Expire(c); return })
	return
}

var (
	_ Spool  = (*world)(nil)
	_ Upkeep = (*world)(nil)
)

// serve starts a customer's server at 192.0.2.N:25 for account "jansen" and makes
// the account, if it is the first.
func (w *world) serve(addr string, m *mx) *mx {
	w.t.Helper()
	m.t = w.t
	l, err := w.net.Listen("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	m.serve(l)
	w.dir.servers = append(w.dir.servers, m)
	return m
}

const jansensServer = "192.0.2.10:25"

// jansen is a customer with a server at 192.0.2.10.
func (w *world) jansen(m *mx) *mx {
	w.dir.put("jansen", directory.Account{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}})
	return w.serve(jansensServer, m)
}

// mail queues a message for an address of the account and lets it be pushed.
func (w *world) mail(login, body string, to ...string) mail.ID {
	w.t.Helper()
	if len(to) == 0 {
		to = []string{"info@" + login + ".example"}
	}
	return w.enqueue(spool.AccountQueue(mail.Login(login)), mail.Envelope{From: "sender@example.net"}, body, to...)
}

func (w *world) enqueue(q spool.QueueName, env mail.Envelope, body string, to ...string) mail.ID {
	w.t.Helper()
	target := spool.Target{Queue: q}
	for _, a := range to {
		target.To = append(target.To, mail.Recipient{Address: mail.Address(a), Notify: notifyOf(env)})
	}
	var got spool.Enqueued
	var staged spool.BodyID
	if len(body) > spool.ChunkBytes {
		for i := 0; i*spool.ChunkBytes < len(body); i++ {
			chunk := body[i*spool.ChunkBytes : min(len(body), (i+1)*spool.ChunkBytes)]
			if err := w.move(nil, func(m *spool.Moves) error {
				s, err := m.Stage(spool.Stage{Body: staged, N: i}, []byte(chunk))
				staged = s.Body
				return err
			}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	err := w.move(nil, func(m *spool.Moves) (err error) {
		inline := []byte(body)
		if staged != 0 {
			inline = nil
		}
		got, err = m.Enqueue(spool.Enqueue{Envelope: env, Targets: []spool.Target{target}, Size: int64(len(body)), Staged: staged}, inline)
		return
	})
	if err != nil || got.ID == 0 {
		w.t.Fatal("not queued:", err)
	}
	return got.ID
}

func notifyOf(env mail.Envelope) mail.Notify {
	if env.EnvID != "" { // a sender who asks for notifications
		return mail.NotifySuccess | mail.NotifyFailure
	}
	return 0
}

func (w *world) login(login string) {
	w.t.Helper()
	if err := w.move(nil, func(m *spool.Moves) error {
		_, _, err := m.LoginTrigger(spool.AccountQueue(mail.Login(login)))
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) trigger(q spool.QueueName, c spool.Cause) {
	w.t.Helper()
	if err := w.move(nil, func(m *spool.Moves) error { _, err := m.Trigger(spool.Trigger{Queue: q, Cause: c}); return err }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) act(a spool.Act) (r spool.Acted) {
	w.t.Helper()
	if err := w.move(a, func(m *spool.Moves) (err error) { r, err = m.Act(a); return }); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// pass lets time pass, and then whatever is under way come to rest.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) queue(login string) spool.Queue {
	w.t.Helper()
	q, _, err := spool.Reader{R: w.db}.Queue(spool.AccountQueue(mail.Login(login)))
	if err != nil {
		w.t.Fatal(err)
	}
	return q
}

func (w *world) messages(q spool.QueueName) (out []spool.Message) {
	w.t.Helper()
	var err error
	for m := range (spool.Reader{R: w.db}).Messages(q, 0, &err) {
		out = append(out, m)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) owed() []spool.Owed {
	w.t.Helper()
	o, err := spool.Reader{R: w.db}.Owed(spool.OwedKey{}, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// left fails the test unless a queue holds n messages and has a next event if any.
func (w *world) left(q spool.QueueName, n int) []spool.Message {
	w.t.Helper()
	got := w.messages(q)
	if len(got) != n {
		row, _, _ := spool.Reader{R: w.db}.Queue(q)
		w.t.Fatalf("%d messages left in %s, want %d; last words %q", len(got), q, n, row.LastWords)
	}
	if without, err := (spool.Reader{R: w.db}).WithoutNext(w.now()); without != 0 || err != nil {
		w.t.Fatalf("%d queues without a next event, %v", without, err)
	}
	return got
}

// metric reads a counter or gauge, or the number of a histogram's observations.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	all, err := w.reg.Gatherer().Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range all {
		if f.GetName() != "bsmtpd_"+name {
			continue
		}
		for _, m := range f.Metric {
			if matches(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func matches(m *dto.Metric, values []string) bool {
	var have []string
	for _, l := range m.Label {
		have = append(have, l.GetValue())
	}
	for _, v := range values {
		if !strings.Contains(" "+strings.Join(have, " ")+" ", " "+v+" ") {
			return false
		}
	}
	return true
}

var _ prometheus.Gatherer = metric.New().Gatherer()

type memDirectory struct {
	mu       sync.Mutex // guards what follows
	accounts map[mail.Login]directory.Account
	domains  map[mail.Domain]directory.Domain
	servers  []*mx
}

var _ Directory = (*memDirectory)(nil)

func (d *memDirectory) put(login mail.Login, a directory.Account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a.Login = login
	d.accounts[login] = a
}

func (d *memDirectory) domain(name mail.Domain, login mail.Login, r directory.Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.domains[name] = directory.Domain{Name: name, Login: login, Route: r}
}

func (d *memDirectory) Account(login mail.Login) (*directory.Account, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, ok := d.accounts[login]; ok {
		return &a, nil
	}
	return nil, nil
}

func (d *memDirectory) Domain(name mail.Domain) (*directory.Domain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, ok := d.domains[name]; ok {
		return &a, nil
	}
	return nil, nil
}

// memDNS answers from its maps; what is in neither does not exist.
type memDNS struct {
	mx    map[string][]*net.MX
	addrs map[string][]netip.Addr
	fail  error // of every look-up
}

var _ host.DNS = (*memDNS)(nil)

func (d *memDNS) MX(_ context.Context, domain string) ([]*net.MX, error) {
	if d.fail != nil {
		return nil, d.fail
	}
	if r, ok := d.mx[domain]; ok {
		return r, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: domain, IsNotFound: true}
}

func (d *memDNS) Addrs(_ context.Context, name string) ([]netip.Addr, error) {
	if d.fail != nil {
		return nil, d.fail
	}
	if r, ok := d.addrs[name]; ok {
		return r, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (d *memDNS) TXT(context.Context, string) ([]string, error)       { return nil, io.EOF }
func (d *memDNS) Names(context.Context, netip.Addr) ([]string, error) { return nil, io.EOF }
