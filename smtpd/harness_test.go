package smtpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// defaults is the Config that the default tags describe.
func defaults(t testing.TB) Config {
	var c Config
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		setKey(t, v.Field(i), v.Type().Field(i).Tag.Get("default"))
	}
	c.Listen = []string{"127.0.0.1:0"}
	return c
}

// with sets one key of a Config from text.
func (c *Config) with(t testing.TB, key, value string) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("key") == key {
			setKey(t, v.Field(i), value)
			return
		}
	}
	t.Fatalf("no key %q", key)
}

func setKey(t testing.TB, f reflect.Value, s string) {
	switch p := f.Addr().Interface().(type) {
	case *string:
		*p = s
	case *int:
		n, err := strconv.Atoi(s)
		check(t, err)
		*p = n
	case *time.Duration:
		d, err := time.ParseDuration(s)
		check(t, err)
		*p = d
	case *mail.Size:
		n, err := mail.ParseSize(s)
		check(t, err)
		*p = n
	case *[]string:
		*p = nil
		if s != "" {
			*p = strings.Split(s, ",")
		}
	default:
		t.Fatalf("a key of type %T", p)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stored is one message that the fake queue was given.
type stored struct {
	spool.Enqueue
	ID   mail.ID
	Body string
}

// world is everything around a server: the queue that stores, the directory, the
// disk.
type world struct {
	t    testing.TB
	cfg  Config
	disk *vfs.MemFS
	net  host.Net
	srv  *Server
	reg  *metric.Registry
	log  bytes.Buffer
	stop func()

	mu     sync.Mutex
	mails  []stored
	fail   error           // of the next Enqueue
	answer *spool.Enqueued // to the next Enqueue
	hold   chan struct{}   // Enqueue waits for it, when not nil
	refuse error           // of Admit
	usage  map[mail.Login]int64
}

func newWorld(t testing.TB) *world {
	return &world{t: t, cfg: defaults(t), disk: vfs.NewMem(), net: host.System().Net, usage: map[mail.Login]int64{}}
}

// serve starts the server; it stops when the test ends.
func (w *world) serve() *world {
	w.t.Helper()
	w.reg = metric.New()
	log := slog.New(slog.NewTextHandler(lockedWriter{w}, nil))
	s, err := New(w.cfg, Deps{Host: host.Host{Net: w.net, FS: host.MadeFS(w.disk)}, Hostname: "mx.example", TempDir: "data/tmp", Queue: w, Directory: w, Usage: usage{w},
		Limits: func() directory.Limits { return directory.Limits{Quota: 20 << 20, QuotaFiltered: 1 << 30} },
		Admit: func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.refuse
		},
		Log: log, MailLog: metric.NewMailLog(log), Metrics: w.reg})
	check(w.t, err)
	check(w.t, s.Listen())
	w.srv = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	if t, ok := w.t.(*testing.T); ok {
		t.Cleanup(w.stop)
	}
	return w
}

type lockedWriter struct{ w *world }

func (l lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(p)
}

// Enqueue implements Queue.
func (w *world) Enqueue(ctx context.Context, m spool.Enqueue, body io.Reader) (spool.Enqueued, error) {
	if m.Envelope.From == "panic@world.example" {
		panic("a bug in the queue")
	}
	b, err := io.ReadAll(body)
	if err == nil && int64(len(b)) != m.Size {
		err = fmt.Errorf("size %d, but %d octets", m.Size, len(b))
	}
	if err != nil {
		w.t.Error(err)
		return spool.Enqueued{}, err
	}
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return spool.Enqueued{}, &mail.Error{Kind: mail.Unavailable, Err: ctx.Err()}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fail; err != nil {
		w.fail = nil
		return spool.Enqueued{}, err
	}
	if a := w.answer; a != nil {
		w.answer = nil
		return *a, nil
	}
	id := mail.NewID(uint64(len(w.mails)+1), 0)
	w.mails = append(w.mails, stored{m, id, string(b)})
	return spool.Enqueued{ID: id, Targets: make([]spool.TargetResult, len(m.Targets))}, nil
}

// Lookup implements Directory: customer.example and the international domain
// are jansen's, piet.example is piet's, gone.example is inactive, provider.example
// has mailboxes for jansen and full.
func (w *world) Lookup(a mail.Address) (directory.Destination, error) {
	customer := func(login mail.Login) (directory.Destination, error) {
		return directory.Destination{Kind: directory.Customer, Account: &directory.Account{Login: login}}, nil
	}
	switch a.Domain() {
	case "customer.example", "xn--bcher-kva.example":
		return customer("jansen")
	case "piet.example":
		return customer("piet")
	case "full.example":
		return customer("full")
	case "gone.example":
		d, err := customer("gone")
		d.Account.Inactive = "the contract has ended"
		return d, err
	case "broken.example":
		return directory.Destination{}, &mail.Error{Kind: mail.Broken, Err: errors.New("row d/broken.example does not decode")}
	case "panic.example":
		panic("a bug in the directory")
	case "provider.example":
		if a.Local() == "jansen" || a.Local() == "full" {
			d, err := customer(mail.Login(a.Local()))
			d.Kind = directory.Mailbox
			return d, err
		}
		return directory.Destination{Kind: directory.NoSuchMailbox}, nil
	}
	return directory.Destination{}, nil
}

type usage struct{ w *world }

func (u usage) Of(l mail.Login) (quota.Usage, error) {
	if l == "full" {
		return quota.Usage{Bytes: 20 << 20, Messages: 9}, nil
	}
	return quota.Usage{}, nil
}

func (w *world) stored() []stored {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]stored(nil), w.mails...)
}

// left reports what a session should have given back.
func (w *world) left() (files []string, memory int64) {
	files, err := w.disk.List("data/tmp")
	check(w.t, err)
	return files, w.srv.bodies.used.Load()
}

// nothingLeft waits for sessions that are ending.
func (w *world) nothingLeft() {
	w.t.Helper()
	for range 1000 {
		if w.srv.gate.count() == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if files, memory := w.left(); len(files) > 0 || memory != 0 {
		w.t.Errorf("left behind: files %v, memory %d", files, memory)
	}
	if n := w.panics(); n != 0 {
		w.t.Errorf("%v panics: %s", n, w.log.String())
	}
}

// counter adds up a metric over those of its labels that have a value.
func (w *world) counter(name, label string) (sum float64) {
	w.t.Helper()
	families, err := w.reg.Gatherer().Gather()
	check(w.t, err)
	for _, f := range families {
		if f.GetName() != metric.Namespace+"_smtpd_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetValue() == label
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (w *world) panics() float64 { return w.counter("panics_total", "") }

// client speaks SMTP octet by octet.
type client struct {
	t testing.TB
	net.Conn
	in bytes.Buffer
}

func (w *world) dial() *client {
	w.t.Helper()
	c, err := net.Dial("tcp", w.srv.Addrs()[0].String())
	check(w.t, err)
	return &client{t: w.t, Conn: c}
}

// hello dials and brings the session to a MAIL with recipients.
func (w *world) hello(rcpt ...string) *client {
	w.t.Helper()
	c := w.dial()
	c.want("220")
	c.say("EHLO client.example", "250")
	c.envelope(rcpt...)
	return c
}

func (c *client) envelope(rcpt ...string) {
	c.t.Helper()
	if len(rcpt) > 0 {
		c.say("MAIL FROM:<sender@world.example>", "250")
	}
	for _, r := range rcpt {
		c.say("RCPT TO:<"+r+">", "250")
	}
}

// reply reads one reply, all its lines; "" when the connection ends.
func (c *client) reply() string {
	c.SetReadDeadline(time.Now().Add(time.Minute))
	var out strings.Builder
	for {
		line, err := c.readLine()
		if err != nil {
			return out.String()
		}
		out.WriteString(line)
		if len(line) > 3 && line[3] == ' ' {
			return out.String()
		}
	}
}

func (c *client) readLine() (string, error) {
	for {
		if i := bytes.IndexByte(c.in.Bytes(), '\n'); i >= 0 {
			return string(c.in.Next(i + 1)), nil
		}
		var b [4096]byte
		n, err := c.Read(b[:])
		c.in.Write(b[:n])
		if n == 0 && err != nil {
			return "", err
		}
	}
}

// want reads a reply and checks how it begins.
func (c *client) want(prefix string) string {
	c.t.Helper()
	r := c.reply()
	if !strings.HasPrefix(r, prefix) || prefix == "" && r != "" {
		c.t.Fatalf("got the reply %q, not %q", r, prefix)
	}
	return r
}

// say sends a line and checks the reply.
func (c *client) say(line, prefix string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.want(prefix)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// pipeNet is a network in memory whose clients have made-up addresses. It works
// in a synctest bubble.
type pipeNet struct {
	host.Net
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeNet() *pipeNet { return &pipeNet{queue: make(chan net.Conn), done: make(chan struct{})} }

func (n *pipeNet) Listen(string, string) (net.Listener, error) { return n, nil }
func (n *pipeNet) Addr() net.Addr                              { return &net.TCPAddr{} }

func (n *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.queue:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *pipeNet) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

type addressed struct {
	net.Conn
	addr netip.Addr
}

func (a addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.addr, 40000))
}

func (n *pipeNet) dial(t testing.TB, from string) *client {
	here, there := net.Pipe()
	n.queue <- addressed{there, netip.MustParseAddr(from)}
	return &client{t: t, Conn: here}
}
