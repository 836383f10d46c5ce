// Package smtpd takes mail in by SMTP and answers 250 only when it is stored.
//
// A connection passes a gate (limits.go), perhaps a PROXY header (proxy.go) and
// a wait before the greeting, and becomes a session behind a strict wire
// (smtpd/strict). Then go-smtp speaks the protocol (engine.go) and calls the
// session: for each recipient it asks the rules of its listener (edge.go), the
// message it reads past its header (header.go) into a body (body.go), and hands
// it to the queue.
package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/smtpd/strict"
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
	Hostname  string // of this server: in its greeting, in replies and in Received fields
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
	tls     *host.Certs // nil: no STARTTLS
	bodies  bodies
	pool    strict.Pool
	engine  *engine
	gate    gate

	listeners []net.Listener
	turning   chan struct{} // slots of maxTurningAway
	running   sync.WaitGroup

	mu       sync.Mutex // guards sessions and ended; held for map operations only
	sessions map[*session]struct{}
	ended    bool // no new sessions
}

// New checks the settings. It opens nothing; see Listen.
func New(cfg Config, deps Deps) (*Server, error) {
	set, err := newSettings(cfg, deps.Hostname)
	if err != nil {
		return nil, err
	}
	s := &Server{deps: deps, log: deps.Log, mailLog: deps.MailLog,
		rules:    edge{deps.Directory, deps.Usage, deps.Limits},
		turning:  make(chan struct{}, max(1, min(maxTurningAway, cfg.MaxConnections))),
		sessions: map[*session]struct{}{}}
	s.set.Store(set)
	s.bodies.fs, s.bodies.dir, s.bodies.log = deps.Host.FS, deps.TempDir, deps.Log
	s.m = newMetrics(deps.Metrics,
		func() float64 { return float64(s.gate.count()) },
		func() float64 { return float64(s.bodies.used.Load()) })
	s.bodies.m = s.m
	s.engine = newEngine(set.Hostname, deps.Log, s.m)
	return s, nil
}

// SetConfig takes new settings for sessions that begin from now on. Listeners
// and certificate files stay what they were.
func (s *Server) SetConfig(cfg Config) error {
	was := s.set.Load().Config
	cfg.Listen, cfg.TLSCert, cfg.TLSKey = was.Listen, was.TLSCert, was.TLSKey
	set, err := newSettings(cfg, s.deps.Hostname)
	if err == nil {
		s.use(set)
	}
	return err
}

func (s *Server) use(set *settings) {
	if s.tls != nil {
		set.wire.TLS = s.tls.Config()
	}
	s.set.Store(set)
}

// Listen removes leftovers, reads the certificate and opens every listener.
func (s *Server) Listen() error {
	set := s.set.Load()
	if err := s.bodies.prepare(); err != nil {
		return err
	}
	var err error
	if s.tls, err = host.LoadCerts(s.deps.Host.FS, s.log, set.TLSCert, set.TLSKey); err != nil {
		return fmt.Errorf("smtpd.%w", err)
	}
	s.use(set)
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
	var engine sync.WaitGroup
	engine.Go(s.engine.serve)
	defer engine.Wait()
	defer s.engine.Close()
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
	s.abortSessions()
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
		handed := false
		defer func() {
			if p := recover(); p != nil { // before there is a session to catch it
				s.m.panics.Inc()
				s.log.Error("a bug ended an SMTP connection; please report it", "panic", p)
				c.Close()
			}
			if !handed {
				s.gate.leave()
			}
		}()
		handed = s.serve(c, set)
	})
}

// turnAway says 421 and closes, if there is a free slot to wait for the write.
func (s *Server) turnAway(c net.Conn, set *settings, text string) {
	select {
	case s.turning <- struct{}{}:
	default:
		s.m.refusal(reasonBusy, 421)
		c.Close()
		return
	}
	s.running.Go(func() {
		defer func() { <-s.turning }()
		s.m.refusal(reasonBusy, 421)
		w := strict.New(c, set.wire, &s.pool, strict.Ignore{})
		w.Refuse(mail.Reply{Code: 421, Status: mail.Status{4, 7, 0}, Text: set.Hostname + " " + text})
		w.Close()
	})
}

// serve brings a connection to go-smtp, which then has a session for it that
// ends both. Where it returns false the connection is closed already.
func (s *Server) serve(c net.Conn, set *settings) bool {
	client := remoteAddr(c)
	var beyond []byte
	if client.IsValid() && set.proxies.contain(client) {
		told, rest, err := readProxy(c)
		if err != nil {
			s.m.connections.WithLabelValues(connProxy).Inc()
			s.log.Warn("a load balancer's connection was refused", "address", client.String(), "err", err)
			c.Close()
			return false
		}
		beyond = rest
		if told.IsValid() {
			client = told
		}
	}
	if !s.gate.enterFrom(client, set.MaxPerAddress) {
		s.m.connections.WithLabelValues(connBusyAddress).Inc()
		s.turnAway(c, set, "too many connections from "+clientName(client))
		return false
	}
	x := &session{srv: s, set: set, rules: s.rules, client: client, name: clientName(client)}
	x.conn = strict.New(c, set.wire, &s.pool, x)
	handed := false
	defer func() {
		if !handed {
			x.conn.Close()
			s.unregister(x)
			s.gate.leaveFrom(client)
		}
	}()
	x.conn.Unread(beyond)
	if !s.register(x) {
		x.conn.Stop()
	}
	if s.greet(x) {
		s.running.Add(1)
		if handed = s.engine.take(&served{x.conn, x}); !handed {
			s.running.Done()
		}
	}
	return handed
}

// greet holds the greeting back for a while and refuses who speaks meanwhile.
func (s *Server) greet(x *session) bool {
	if x.set.GreetWait == 0 || !x.client.IsValid() || x.set.greetSkip.contain(x.client) {
		return true
	}
	err := x.conn.Early(x.set.GreetWait)
	var f *strict.Fault
	switch {
	case err == nil:
		return true
	case errors.As(err, &f) && f.Cause == strict.Early:
		s.m.connections.WithLabelValues(connEarly).Inc()
	default:
		s.m.connections.WithLabelValues(connGone).Inc()
	}
	return false
}

func clientName(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

// register makes a session known to Run; false: the server is stopping.
func (s *Server) register(x *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[x] = struct{}{}
	return !s.ended
}

func (s *Server) unregister(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, x)
}

func (s *Server) stopSessions() {
	s.mu.Lock()
	s.ended = true
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	for _, x := range all {
		x.conn.Stop()
	}
}

// abortSessions closes connections. Who is about to hear that his message is
// stored hears it first: he would send it again.
func (s *Server) abortSessions() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	for _, x := range all {
		if x.storing.Load() {
			x.conn.Finish()
		} else {
			x.conn.Abort()
		}
	}
}
