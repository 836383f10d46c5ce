package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// town is an API server on real rows, with a node that applies commands at once.
type town struct {
	t      testing.TB
	server *Server
	admin  *client.Client // as on the admin socket
	tcp    *httptest.Server

	mu       sync.Mutex // guards what follows
	store    *kv.Store
	ids      uint64
	clock    time.Duration // added to the time of day
	ahead    time.Duration // of the spool's time, by which the API reads
	fail     error         // every command fails with it
	busy     map[mail.ID]bool
	limits   directory.Limits
	notReady []string
	sources  []netip.Addr

	out *outside
}

var _ Node = (*town)(nil)

func newTown(t testing.TB) *town {
	t.Helper()
	store, err := kv.Open("db", kv.Options{FS: vfs.NewMem(), CacheBytes: 4 << 20, MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w := &town{t: t, store: store, limits: directory.Limits{Quota: 20 << 20, QuotaFiltered: 1 << 30}, busy: map[mail.ID]bool{}}
	w.out = &outside{mx: map[string][]*net.MX{}, addrs: map[string][]netip.Addr{}, banners: map[string]string{}}
	sys := host.System()
	w.server = New(testConfig(), Deps{
		Node: w, Log: slog.New(slog.DiscardHandler), MailLog: metric.NewMailLog(slog.New(slog.DiscardHandler)), Metrics: metric.New(),
		Host:    host.Host{Net: w.out, DNS: w.out, FS: sys.FS, Rand: func(string) *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }},
		DataDir: t.TempDir(), Name: "n1", Version: "test", Hostname: "mx1.provider.example",
		Sources: func() []netip.Addr { return w.sources }, NotReady: func() []string { return w.notReady },
	})
	socket := httptest.NewServer(w.server.admin)
	w.tcp = httptest.NewServer(w.server.tcp)
	if w.admin, err = client.URL(sys.Net, socket.URL, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.Close()
		socket.Close()
		w.tcp.Close()
		store.Close()
	})
	return w
}

func testConfig() Config {
	return Config{MaxConnections: 64, MaxImport: 8 << 20, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, ProbeTimeout: time.Second}
}

func (w *town) ctx() context.Context { return w.t.Context() }

// apply runs a command in one batch.
func (w *town) apply(f func(m *spool.Moves) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	batch := w.store.Begin()
	tx := kv.NewOverlay(batch)
	m := &spool.Moves{Tx: tx, Now: mail.At(time.Now().Add(w.clock + w.ahead)), Set: spool.DefaultSettings(),
		NewID: func() mail.ID { w.ids++; return mail.NewID(w.ids, 0) }}
	m.Charge = func(login mail.Login, size int64) (spool.TargetResult, error) {
		a, err := directory.Reader{R: tx}.Account(login)
		if err != nil || a == nil {
			return spool.TargetResult{Refusal: spool.NoAccount}, err
		}
		ok, err := quota.Charge(tx, login, size, w.limits.QuotaOf(a))
		if ok || err != nil {
			return spool.TargetResult{}, err
		}
		return spool.TargetResult{Refusal: spool.OverQuota}, nil
	}
	m.Refund = func(login mail.Login, bytes, n int64) error { return quota.Refund(tx, login, bytes, n) }
	if err := f(m); err != nil {
		batch.Discard()
		return err
	}
	if err := tx.Apply(); err != nil {
		return err
	}
	return batch.Commit()
}

func (w *town) PutAccounts(_ context.Context, c directory.PutAccounts) (out []directory.Put, err error) {
	return out, w.apply(func(m *spool.Moves) error { out, err = c.Apply(m.Tx, m.Now); return err })
}

func (w *town) PutDomains(_ context.Context, c directory.PutDomains) (out []directory.Put, err error) {
	return out, w.apply(func(m *spool.Moves) error { out, err = c.Apply(m.Tx, m.Now); return err })
}

func (w *town) RemoveAccount(_ context.Context, c directory.RemoveAccount) error {
	return w.apply(func(m *spool.Moves) error { return c.Apply(m.Tx, m.Now) })
}

func (w *town) RemoveDomain(_ context.Context, c directory.RemoveDomain) error {
	return w.apply(func(m *spool.Moves) error { return c.Apply(m.Tx, m.Now) })
}

func (w *town) Login(_ context.Context, e directory.Event) (out directory.Seen, err error) {
	return out, w.apply(func(m *spool.Moves) error {
		if out, err = e.Apply(m.Tx, m.Now, 0); err != nil || !out.Triggers {
			return err
		}
		out.Debounced, out.Queued, err = m.LoginTrigger(spool.AccountQueue(out.Login))
		return err
	})
}

func (w *town) Act(_ context.Context, c spool.Act) (out spool.Acted, err error) {
	err = w.apply(func(m *spool.Moves) error {
		var busy []spool.Item
		var free []spool.Item
		for _, it := range c.Items {
			if w.busy[it.ID] {
				busy = append(busy, it)
			} else {
				free = append(free, it)
			}
		}
		c.Items = free
		out, err = m.Act(c)
		out.Busy = append(out.Busy, busy...)
		if err == nil {
			err = directory.AuditRecord{By: c.By, Action: "queue " + c.Action.String(), Object: strings.TrimSpace(fmt.Sprint(out.Done, " ", c.Filter)), Reason: c.Reason}.Apply(m.Tx, m.Now)
		}
		return err
	})
	if err == nil && len(out.Busy) > 0 {
		err = mail.Fail(mail.Conflict, "busy")
	}
	return out, err
}

func (w *town) HoldQueue(_ context.Context, c spool.HoldQueue) error {
	return w.apply(func(m *spool.Moves) error { return m.HoldQueue(c) })
}

func (w *town) Trigger(_ context.Context, c spool.Trigger) (out spool.Triggered, err error) {
	return out, w.apply(func(m *spool.Moves) error { out, err = m.Trigger(c); return err })
}

func (w *town) Suspend(_ context.Context, c spool.Suspend) error {
	return w.apply(func(m *spool.Moves) error { return m.Suspend(c) })
}

func (w *town) Spool() spool.Reader { return spool.Reader{R: w.store} }

func (w *town) Directory() directory.Reader {
	return directory.Reader{R: w.store, Provider: []mail.Domain{"provider.example"}}
}

func (w *town) Quota() quota.Reader { return quota.Reader{R: w.store} }

// Now is not moved by clock: that makes mail older, not the day later.
func (w *town) Now() mail.Time { return mail.At(time.Now()).Add(w.ahead) }

func (w *town) Settings() (spool.Settings, directory.Limits) {
	return spool.DefaultSettings(), w.limits
}

// The verbs of tests.

// account adds an account with a domain "<login>.example" and a fixed address.
func (w *town) account(login string, address ...string) {
	w.t.Helper()
	if _, err := w.admin.AddAccount(w.ctx(), wire.Account{Login: mail.Login(login), Addresses: address}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.admin.AddDomain(w.ctx(), wire.Domain{Name: mail.Domain(login + ".example"), Login: mail.Login(login)}); err != nil {
		w.t.Fatal(err)
	}
}

// mail queues a message, which arrived some time ago; the ID.
func (w *town) mail(queue, from, to string, size int, age time.Duration) string {
	w.t.Helper()
	w.clock = -age
	defer func() { w.clock = 0 }()
	text := "Subject: test\r\n\r\n" + strings.Repeat("x", max(0, size-17))
	var out spool.Enqueued
	if err := w.apply(func(m *spool.Moves) (err error) {
		out, err = m.Enqueue(spool.Enqueue{Envelope: mail.Envelope{From: mail.Address(from)}, Size: int64(len(text)),
			Targets: []spool.Target{{Queue: spool.QueueName(queue), To: []mail.Recipient{{Address: mail.Address(to)}}}}}, []byte(text))
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	if out.ID == 0 {
		w.t.Fatalf("mail was refused: %+v", out)
	}
	return out.ID.String()
}

// attempt is a session that failed with words.
func (w *town) attempt(queue, words string, ago time.Duration) {
	w.t.Helper()
	w.clock = -ago
	defer func() { w.clock = 0 }()
	q := spool.QueueName(queue)
	if err := w.apply(func(m *spool.Moves) error {
		if _, err := m.Claim(spool.Claim{Queue: q, Node: "n1", Session: 7, Until: m.Now.Add(time.Minute), Cause: spool.CauseTimer}); err != nil {
			return err
		}
		_, err := m.Finish(spool.Finish{Queue: q, Session: 7, Outcome: spool.OutcomeFailed, Began: m.Now, Words: words, Remote: "192.0.2.10:25", Cause: spool.CauseTimer})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// rows collects a list.
func collect[T any](t testing.TB, seq func(func(T, error) bool)) []T {
	t.Helper()
	var out []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func wantKind(t testing.TB, err error, kind mail.Kind, word string) {
	t.Helper()
	if err == nil || mail.KindOf(err) != kind || !strings.Contains(err.Error(), word) {
		t.Fatalf("got %v (%v), want %v with %q", err, mail.KindOf(err), kind, word)
	}
}

// raw makes a call without the client.
func (w *town) raw(url, method, path, body string, header ...string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.ctx(), method, url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// do is one request to a handler without a network.
func do(h http.Handler, method, path, body string) (int, string) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec.Code, rec.Body.String()
}

// outside is the world that explanations ask: customers' servers and DNS.
type outside struct {
	mx      map[string][]*net.MX
	addrs   map[string][]netip.Addr
	banners map[string]string // address:port → banner; "" hangs
	dialled []string
	mu      sync.Mutex
}

func (o *outside) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (o *outside) ListenPacket(string, string) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

func (o *outside) Dial(ctx context.Context, network string, local netip.Addr, address string) (net.Conn, error) {
	if network == "unix" {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	o.mu.Lock()
	o.dialled = append(o.dialled, fmt.Sprint(local, " ", address))
	o.mu.Unlock()
	banner, ok := o.banners[address]
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		if banner != "" {
			io.WriteString(there, banner+"\r\n")
		}
		io.Copy(io.Discard, there)
	}()
	return here, nil
}

func (o *outside) MX(_ context.Context, domain string) ([]*net.MX, error) {
	if mx, ok := o.mx[domain]; ok {
		return mx, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: domain, IsNotFound: true}
}

func (o *outside) Addrs(_ context.Context, name string) ([]netip.Addr, error) {
	if a, ok := o.addrs[name]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (o *outside) TXT(context.Context, string) ([]string, error) { return nil, errors.ErrUnsupported }

func (o *outside) Names(context.Context, netip.Addr) ([]string, error) {
	return nil, errors.ErrUnsupported
}
