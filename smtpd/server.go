// Package smtpd takes mail in by SMTP and answers 250 only when it is stored.
//
// A connection passes a gate (limits.go), perhaps a PROXY header (proxy.go) and
// a wait before the greeting (greet.go), and becomes a session. The session
// reads commands from its wire, asks the rules of its listener (edge.go) about
// each recipient, takes the message through a checker (check.go) into a body
// (body.go), and hands it to the queue.
//
// The protocol is spoken here and not by emersion/go-smtp, whose server was
// tried first. Version 0.25.1 takes LF for CRLF in commands, drops octets at
// CRLF "." CR and then accepts the message, never finds the end of data after
// CR CR LF, refuses the <postmaster> that RFC 5321 section 4.5.1 wants, and
// after RSET amid BDAT can give one message the reply of another, so that a
// sender could be told 250 for a message that is not stored. gosmtp_test.go
// shows the first four. With TLS under its own control there is no place to
// correct it from outside.
package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// Queue stores messages; cluster.Node does.
type Queue interface {
	// Enqueue reads exactly m.Size bytes of body and returns when the outcome is
	// committed and applied. Errors are *mail.Error.
	Enqueue(ctx context.Context, m spool.Enqueue, body io.Reader) (spool.Enqueued, error)
}

// Deps is what a Server works with.
type Deps struct {
	Host      host.Host
	TempDir   string // for large messages; made if need be, files named smtpd-* in it are removed
	Queue     Queue
	Directory Directory
	Usage     Usage
	Limits    func() directory.Limits

	// Admit says whether mail may be taken now: nil, or a *mail.Error of kind
	// LowSpace (452 at MAIL) or Unavailable (421). Its text is told to the
	// client. It must not wait.
	Admit func() error

	Log     *slog.Logger
	MailLog *metric.MailLog
	Metrics *metric.Registry
}

// maxTurningAway bounds the goroutines that say 421 to connections past the
// limit; still more are closed without a word.
const maxTurningAway = 64

// Server listens at one or more addresses. Make it with New, then Listen, then
// Run once.
type Server struct {
	deps    Deps
	log     *slog.Logger
	mailLog *metric.MailLog
	m       *metrics
	set     atomic.Pointer[settings]
	rules   rules
	tls     *certs // nil: no STARTTLS
	bodies  bodies
	buffers buffers
	gate    gate

	listeners []net.Listener
	turning   chan struct{} // slots of maxTurningAway
	running   sync.WaitGroup

	mu    sync.Mutex // guards conns and ended; held for map operations only
	conns map[net.Conn]*wire
	ended bool // no new sessions
}

// New checks the settings. It opens nothing; see Listen.
func New(cfg Config, deps Deps) (*Server, error) {
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{deps: deps, log: deps.Log, mailLog: deps.MailLog,
		rules:   edge{deps.Directory, deps.Usage, deps.Limits},
		turning: make(chan struct{}, maxTurningAway),
		conns:   map[net.Conn]*wire{}}
	s.set.Store(set)
	s.bodies.fs, s.bodies.dir, s.bodies.log = deps.Host.FS, deps.TempDir, deps.Log
	s.m = newMetrics(deps.Metrics,
		func() float64 { return float64(s.gate.count()) },
		func() float64 { return float64(s.bodies.used.Load()) })
	s.bodies.m = s.m
	return s, nil
}

// SetConfig takes new settings for sessions that begin from now on. Listeners,
// host name and certificate files stay what they were.
func (s *Server) SetConfig(cfg Config) error {
	was := s.set.Load().Config
	cfg.Listen, cfg.Hostname, cfg.TLSCert, cfg.TLSKey = was.Listen, was.Hostname, was.TLSCert, was.TLSKey
	set, err := newSettings(cfg)
	if err == nil {
		s.set.Store(set)
	}
	return err
}

// Listen removes leftovers, reads the certificate and opens every listener.
func (s *Server) Listen() error {
	set := s.set.Load()
	if err := s.bodies.prepare(); err != nil {
		return err
	}
	var err error
	if s.tls, err = newCerts(s.deps.Host.FS, s.log, set.TLSCert, set.TLSKey); err != nil {
		return fmt.Errorf("smtpd.%w", err)
	}
	for _, addr := range set.Listen {
		l, err := s.deps.Host.Net.Listen("tcp", addr)
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("smtpd.listen: cannot take mail at %s: %w; stop what uses the address or choose another", addr, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// Addrs is where the server listens.
func (s *Server) Addrs() []net.Addr {
	var out []net.Addr
	for _, l := range s.listeners {
		out = append(out, l.Addr())
	}
	return out
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// Run serves until ctx ends. Then it asks idle clients to come again, lets
// messages that are on their way in finish for stop_timeout, waits for what is
// being stored (enqueue_timeout at most) and returns.
func (s *Server) Run(ctx context.Context) error {
	for _, l := range s.listeners {
		s.running.Go(func() { s.accept(ctx, l) })
	}
	<-ctx.Done()
	s.closeListeners()
	s.stopSessions()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(s.set.Load().StopTimeout):
	}
	s.closeSessions()
	<-done
	return nil
}

// accept takes connections and never waits for one.
func (s *Server) accept(ctx context.Context, l net.Listener) {
	const longest = time.Second
	wait := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			wait = 0
			s.admit(c)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		wait = min(max(2*wait, 5*time.Millisecond), longest)
		s.log.Error("a connection could not be accepted; trying again", "addr", l.Addr().String(), "err", err)
		if host.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// admit starts a session, or turns the connection away.
func (s *Server) admit(c net.Conn) {
	set := s.set.Load()
	if !s.gate.enter(set.MaxConnections) {
		s.m.connections.WithLabelValues(connBusy).Inc()
		s.turnAway(c, set, "too many connections; try again later")
		return
	}
	s.running.Go(func() {
		defer s.gate.leave()
		defer func() {
			if p := recover(); p != nil { // before there is a session to catch it
				s.m.panics.Inc()
				s.log.Error("a bug ended an SMTP connection; please report it", "panic", p)
				c.Close()
			}
		}()
		s.serve(c, set)
	})
}

// turnAway says 421 and closes, if there is a free slot to wait for the write.
func (s *Server) turnAway(c net.Conn, set *settings, text string) {
	r := refuse(reasonBusy, 421, mail.Status{4, 7, 0}, text)
	s.m.refusal(r)
	select {
	case s.turning <- struct{}{}:
	default:
		c.Close()
		return
	}
	s.running.Go(func() {
		defer func() { <-s.turning }()
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(lingerTime))
		c.Write(appendReply(nil, r.Code, r.Status, set.Hostname+" "+r.Text))
	})
}

// serve brings a connection to its session and sees it through.
func (s *Server) serve(c net.Conn, set *settings) {
	client := remoteAddr(c)
	var beyond []byte
	if client.IsValid() && set.proxies.contain(client) {
		told, rest, err := readProxy(c)
		if err != nil {
			s.m.connections.WithLabelValues(connProxy).Inc()
			s.log.Warn("a load balancer's connection was refused", "address", client.String(), "err", err)
			c.Close()
			return
		}
		beyond = rest
		if told.IsValid() {
			client = told
		}
	}
	if !s.gate.enterFrom(client, set.MaxPerAddress) {
		s.m.connections.WithLabelValues(connBusyAddress).Inc()
		s.turnAway(c, set, "too many connections from "+clientName(client))
		return
	}
	defer s.gate.leaveFrom(client)
	w := newWire(c, &s.buffers, set.WriteTimeout)
	w.w = copy(w.buf, beyond) // the header's reader has a smaller buffer
	if !s.register(c, w) {
		w.stop()
	}
	defer s.unregister(c)
	x := &session{srv: s, set: set, rules: s.rules, wire: w, client: client, name: clientName(client), began: time.Now()}
	if !s.greet(x) {
		return
	}
	result := connServed
	if x.run() {
		result = connPanic
	}
	s.m.connections.WithLabelValues(result).Inc()
}

// greet holds the greeting back for a while and refuses who speaks meanwhile.
func (s *Server) greet(x *session) bool {
	if x.set.GreetWait == 0 || !x.client.IsValid() || x.set.greetSkip.contain(x.client) {
		return true
	}
	early, err := spokeEarly(x.wire, x.set.GreetWait)
	switch {
	case early:
		s.m.connections.WithLabelValues(connEarly).Inc()
		err = errEarly()
	case err != nil:
		s.m.connections.WithLabelValues(connGone).Inc()
	default:
		return true
	}
	var r *refusal
	if errors.As(err, &r) {
		x.refuse(r)
	}
	x.wire.close(early)
	return false
}

func clientName(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

// register makes a session known to Run; false: the server is stopping.
func (s *Server) register(c net.Conn, w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = w
	return !s.ended
}

func (s *Server) unregister(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) stopSessions() {
	s.mu.Lock()
	s.ended = true
	wires := make([]*wire, 0, len(s.conns))
	for _, w := range s.conns {
		wires = append(wires, w)
	}
	s.mu.Unlock()
	for _, w := range wires {
		w.stop()
	}
}

func (s *Server) closeSessions() {
	s.mu.Lock()
	conns := make([]net.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
