package delivery

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// peer is go-smtp's server: somebody else's reading of the standards.
type peer struct {
	mu   sync.Mutex // guards mail
	mail []arrived
}

func (p *peer) NewSession(*smtp.Conn) (smtp.Session, error) { return &peerSession{peer: p}, nil }

type peerSession struct {
	peer *peer
	from string
	to   []string
}

func (s *peerSession) Reset()        { s.from, s.to = "", nil }
func (s *peerSession) Logout() error { return nil }
func (s *peerSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *peerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "bad@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *peerSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if strings.Contains(string(b), "refuse me") {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "refused"}
	}
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	s.peer.mail = append(s.peer.mail, arrived{from: s.from, to: s.to, body: string(b)})
	return nil
}

// noChunkListener takes CHUNKING out of what a server offers.
type noChunkListener struct{ net.Listener }

func (l noChunkListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return maskedWrites{c}, nil
}

type maskedWrites struct{ net.Conn }

func (c maskedWrites) Write(b []byte) (int, error) {
	return c.Conn.Write([]byte(strings.ReplaceAll(string(b), "CHUNKING", "XHUNKING")))
}

func TestGoSMTPServerTakesEverything(t *testing.T) {
	for _, chunking := range []bool{true, false} {
		for _, withTLS := range []bool{true, false} {
			t.Run(fmt.Sprintf("chunking %v, tls %v", chunking, withTLS), func(t *testing.T) { pushToPeer(t, chunking, withTLS) })
		}
	}
}

// listen starts the peer on this machine, until the test has ended.
func (p *peer) listen(t *testing.T, chunking, withTLS bool) netip.AddrPort {
	srv := smtp.NewServer(p)
	srv.Domain, srv.EnableSMTPUTF8, srv.EnableDSN, srv.MaxRecipients = "peer.example", true, true, 1000
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if withTLS {
		srv.TLSConfig, _ = certificate(t, "peer.example")
	}
	l, err := host.System().Net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if !chunking && !withTLS { // inside TLS nothing can be masked
		l = noChunkListener{l}
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != nil && !errors.Is(err, smtp.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return addr
}

func pushToPeer(t *testing.T, chunking, withTLS bool) {
	p := &peer{}
	addr := p.listen(t, chunking, withTLS)
	w := newWorld(t)
	defer w.close()
	w.stop()
	w.pusher = New(testConfig(), Deps{Host: host.System(), Self: Self{Node: "n1", Hostname: "bsmtp.example.net"}, Spool: w, Rows: spool.Reader{R: w.db},
		Directory: w.dir, Settings: spool.DefaultSettings, Log: slog.New(slog.DiscardHandler),
		MailLog: metric.NewMailLog(slog.New(slog.DiscardHandler)), Metrics: metric.New()})
	w.ended = make(chan struct{})
	w.start()
	w.dir.put("jansen", directory.Account{Route: directory.Route{Host: addr.Addr().String(), Port: addr.Port()}})
	w.pusher.Pause(true)
	var want []string
	for i := range 120 {
		body := fmt.Sprintf("%d\r\n.\r\n..\r\n%s\r\n", i, strings.Repeat("line\r\n", i*i))
		switch i % 10 {
		case 3:
			w.mail("jansen", body, "bad@jansen.example")
			continue
		case 5:
			w.mail("jansen", body+"refuse me\r\n")
			continue
		case 7:
			w.mail("jansen", body, "bad@jansen.example", "info@jansen.example")
		default:
			w.mail("jansen", body)
		}
		want = append(want, body)
	}
	w.pusher.Pause(false)
	deadline := time.Now().Add(20 * time.Second)
	for len(w.messages(jansensQueue)) > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	w.left(jansensQueue, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mail) != len(want) {
		t.Fatal(len(p.mail), "arrived, want", len(want))
	}
	for i, b := range want {
		if p.mail[i].body != b || p.mail[i].from != "sender@example.net" || len(p.mail[i].to) != 1 {
			t.Fatalf("message %d became %.50q from %s", i, p.mail[i].body, p.mail[i].from)
		}
	}
	if n := len(w.owed()); n != 36 {
		t.Fatal(n, "bounces owed")
	}
}
