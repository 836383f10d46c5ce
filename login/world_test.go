package login

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
)

var errLeader = mail.Fail(mail.Unavailable, "no leader")

// book is the directory as a fake: it writes down what it is told.
type book struct {
	mu     sync.Mutex
	events []directory.Event
	answer func(n int, e directory.Event) (directory.Seen, error) // n counts from 1; nil: every login triggers
	slow   time.Duration
}

func (b *book) Login(ctx context.Context, e directory.Event) (directory.Seen, error) {
	if b.slow > 0 {
		if err := host.Sleep(ctx, b.slow); err != nil {
			return directory.Seen{}, mail.Fail(mail.Unavailable, "not committed in time")
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
	if b.answer != nil {
		return b.answer(len(b.events), e)
	}
	return directory.Seen{Login: e.Login, Online: e.Kind == directory.EventStart, Triggers: e.Kind == directory.EventStart}, nil
}

func (b *book) heard() []directory.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]directory.Event(nil), b.events...)
}

// datagram is one packet on its way.
type datagram struct {
	b    []byte
	from net.Addr
}

// socket is a made-up UDP socket: the server reads what arrives, and what it
// sends can be looked at.
type socket struct {
	in, out chan datagram
	awake   chan struct{} // closed by SetReadDeadline and Close
	once    sync.Once
}

func newSocket() *socket {
	return &socket{in: make(chan datagram, 1000), out: make(chan datagram, 100_000), awake: make(chan struct{})}
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-s.in:
		return copy(b, d.b), d.from, nil
	case <-s.awake:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.out <- datagram{append([]byte(nil), b...), to}
	return len(b), nil
}

func (s *socket) SetReadDeadline(time.Time) error  { s.once.Do(func() { close(s.awake) }); return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
func (s *socket) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *socket) Close() error                     { return s.SetReadDeadline(time.Time{}) }
func (s *socket) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:18130"))
}

// madeUp is a host of one socket and a file system in memory that tells of no
// change.
type madeUp struct {
	*socket
	host.FS
}

func (m madeUp) Listen(string, string) (net.Listener, error) { return nil, errors.ErrUnsupported }
func (m madeUp) ListenPacket(_, address string) (net.PacketConn, error) {
	if address == "127.0.0.1:9" {
		return nil, errors.New("address already in use")
	}
	return m.socket, nil
}
func (m madeUp) Dial(context.Context, string, netip.Addr, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
func (m madeUp) Watch(string) (<-chan struct{}, io.Closer, error) {
	return nil, nil, errors.ErrUnsupported
}

// world is a running server and the access network around it.
type world struct {
	t      *testing.T
	book   *book
	socket *socket
	fs     host.FS
	server *Server
	log    *strings.Builder // read it only after synctest.Wait
	reg    *metric.Registry
	last   byte
}

func testConfig() Config {
	return Config{StripRealm: true,
		Radius: Radius{Listen: "127.0.0.1:18130", Workers: 4, Queue: 8, Timeout: 5 * time.Second,
			Clients: []Client{{Network: "127.0.0.1", Secret: DefaultSecret}, {Network: "192.0.2.0/24", Secret: "verborgen"}}},
		Files: Files{Dir: "logins", Rescan: 10 * time.Second},
	}
}

// inWorld runs a story in a bubble of its own.
func inWorld(t *testing.T, story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.server.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}()
		synctest.Wait()
		story(w)
	})
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, book: &book{}, socket: newSocket(), log: &strings.Builder{}, reg: metric.New()}
	outside := madeUp{w.socket, host.MadeFS(vfs.NewMem())}
	w.fs = outside
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.server = New(cfg, host.Host{Net: outside, FS: outside}, "/data", w.book, logger, w.reg)
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	return w
}

// packet makes an Accounting-Request of jansen's session s1 at nas1.
func (w *world) packet(status rfc2866.AcctStatusType, change ...func(p *radius.Packet)) *radius.Packet {
	w.last++
	p := &radius.Packet{Code: radius.CodeAccountingRequest, Identifier: w.last, Secret: []byte(DefaultSecret)}
	rfc2866.AcctStatusType_Set(p, status)
	rfc2866.AcctSessionID_SetString(p, "s1")
	rfc2865.UserName_SetString(p, "Jansen@example.net")
	rfc2865.NASIdentifier_SetString(p, "nas1")
	rfc2865.FramedIPAddress_Set(p, net.IPv4(192, 0, 2, 10))
	for _, f := range change {
		f(p)
	}
	return p
}

func encode(t testing.TB, p *radius.Packet) []byte {
	t.Helper()
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send delivers bytes from a client of this machine and gives what came back
// once everything is quiet; nil for no answer.
func (w *world) send(b []byte) []byte { return w.sendFrom(b, "127.0.0.1:4000") }

func (w *world) sendFrom(b []byte, from string) []byte {
	w.t.Helper()
	w.socket.in <- datagram{b, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	synctest.Wait()
	return w.received()
}

func (w *world) received() []byte {
	select {
	case d := <-w.socket.out:
		return d.b
	default:
		return nil
	}
}

// count reads a counter with its label values, "name{a,b}".
func (w *world) count(name string, values ...string) float64 {
	w.t.Helper()
	families, err := w.reg.Gatherer().Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != metric.Namespace+"_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := 0
			for _, l := range m.GetLabel() {
				for _, v := range values {
					if l.GetValue() == v {
						found++
					}
				}
			}
			if found == len(values) {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}
