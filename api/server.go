// Package api serves the HTTP API, the one door for commands, login hooks and
// pages: on the admin socket with full rights, and on TCP with bearer tokens.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// Node is what the API needs of the replicated machine. Errors are *mail.Error.
type Node interface {
	PutAccounts(context.Context, directory.PutAccounts) ([]directory.Put, error)
	PutDomains(context.Context, directory.PutDomains) ([]directory.Put, error)
	RemoveAccount(context.Context, directory.RemoveAccount) error
	RemoveDomain(context.Context, directory.RemoveDomain) error
	Login(context.Context, directory.Event) (directory.Seen, error)

	// Act waits a while for messages that may be on the wire. What is busy even
	// then is in Acted.Busy, beside an error.
	Act(context.Context, spool.Act) (spool.Acted, error)
	HoldQueue(context.Context, spool.HoldQueue) error
	Trigger(context.Context, spool.Trigger) (spool.Triggered, error)
	Suspend(context.Context, spool.Suspend) error

	Spool() spool.Reader
	Directory() directory.Reader
	Quota() quota.Reader
	Settings() (spool.Settings, directory.Limits)
	Now() mail.Time // what times in rows are compared with
}

// Deps is what a Server works with.
type Deps struct {
	Node    Node
	Host    host.Host
	Log     *slog.Logger
	MailLog *metric.MailLog // nil: none
	Metrics *metric.Registry

	DataDir  string // holds admin.sock and api-token; its mode must be 0700
	Name     string // of this node
	Version  string
	Hostname string // this server's name in the mail world

	// Sources are the addresses from which mail is pushed (B13); nil: the system
	// chooses.
	Sources func() []netip.Addr
	// NotReady gives the reasons why the node should get no traffic; nil: none.
	NotReady func() []string
	// Warnings are what an operator must look at although the node serves; nil: none.
	Warnings func() []string
	// Leader names the node that leads; nil: not told.
	Leader func() string
}

// Names in the data directory.
const (
	SocketName = "admin.sock"
	TokenName  = "api-token"
)

// Bounds that nobody needs to set.
const (
	maxHeaderBytes    = 32 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 5 * time.Second
	maxSocketPath     = 107 // bytes in sockaddr_un, less the terminating NUL
)

// Server is the HTTP API.
type Server struct {
	deps    Deps
	cfg     atomic.Pointer[Config]
	tokens  atomic.Pointer[tokenSet]
	log     *slog.Logger
	metrics metrics
	started time.Time

	admin, tcp http.Handler

	mu        sync.Mutex // guards listeners; nothing is called while it is held
	listeners []door
}

// door is one listener and the handler behind it.
type door struct {
	l net.Listener
	h http.Handler
}

type metrics struct {
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec
	panics   prometheus.Counter
	logins   *prometheus.CounterVec
	doubles  *prometheus.CounterVec
}

// New makes a server. Call Listen, then Run.
func New(cfg Config, deps Deps) *Server {
	if deps.Sources == nil {
		deps.Sources = func() []netip.Addr { return nil }
	}
	if deps.Warnings == nil {
		deps.Warnings = func() []string { return nil }
	}
	if deps.NotReady == nil {
		deps.NotReady = func() []string { return nil }
	}
	if deps.Leader == nil {
		deps.Leader = func() string { return "" }
	}
	s := &Server{
		deps: deps, log: deps.Log, started: time.Now(),
		metrics: metrics{
			requests: deps.Metrics.Counters("api_requests_total", "Calls of the HTTP API by door and class of status.", "door", "status"),
			refused:  deps.Metrics.Counters("api_refused_total", "Calls refused before they were looked at: connection limit, no or wrong token, scope.", "reason"),
			panics:   deps.Metrics.Counter("api_panics_total", "Calls that ended in a panic; each is a bug."),
			logins:   deps.Metrics.Counters("api_login_events_total", "Login events by source (http, cli) and outcome: triggered, debounced, noted, duplicate, unknown or failed.", "source", "outcome"),
			doubles:  deps.Metrics.Counters("api_login_doubles_total", "Logins told over the API that break the one-session rule, by way: session or address.", "way"),
		},
	}
	s.cfg.Store(&cfg)
	s.tokens.Store(&tokenSet{})
	s.admin, s.tcp = s.handlers()
	return s
}

// SetConfig takes what can change while running: the tokens are read anew.
func (s *Server) SetConfig(cfg Config) error {
	tokens, err := s.loadTokens(cfg)
	if err != nil {
		return err
	}
	s.cfg.Store(&cfg)
	s.tokens.Store(tokens)
	return nil
}

func (s *Server) config() *Config { return s.cfg.Load() }

// Listen makes or reads the tokens and binds the admin socket and the TCP address.
func (s *Server) Listen() error {
	cfg := s.config()
	if err := s.ensureToken(); err != nil {
		return err
	}
	if err := s.SetConfig(*cfg); err != nil {
		return err
	}
	sock, err := s.listenSocket()
	if err != nil {
		return err
	}
	doors := []door{{s.limit(sock, "socket"), s.admin}}
	if cfg.Address != "" {
		l, err := s.deps.Host.Net.Listen("tcp", cfg.Address)
		if err != nil {
			sock.Close()
			return fmt.Errorf("api.address: cannot serve the HTTP API at %s: %w; stop what uses the address or choose another", cfg.Address, err)
		}
		certs, err := host.LoadCerts(s.deps.Host.FS, s.log, cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("api.%w", errors.Join(err, l.Close(), sock.Close()))
		}
		outer := s.limit(l, "tcp")
		switch {
		case certs != nil:
			outer = tls.NewListener(outer, certs.Config())
		case !isLoopback(l.Addr()):
			s.log.Warn("tokens for the HTTP API can be read on the way to it; set api.tls_cert and api.tls_key", "address", l.Addr().String())
		}
		doors = append(doors, door{outer, s.tcp})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = doors
	return nil
}

func isLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().IsLoopback()
}

// listenSocket binds the admin socket, taking the place of one that a node which
// is gone has left.
func (s *Server) listenSocket() (net.Listener, error) {
	path := s.deps.Host.FS.PathJoin(s.deps.DataDir, SocketName)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("admin socket %s: the path has %d bytes and the system takes %d; use a shorter data directory", path, len(path), maxSocketPath)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c, err := s.deps.Host.Net.Dial(ctx, "unix", netip.Addr{}, path); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another node is running on this data directory", path)
	}
	if err := s.deps.Host.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: remove the one left over: %w", err)
	}
	l, err := s.deps.Host.Net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	// A made-up network has sockets that are no files.
	if err := s.deps.Host.FS.Chmod(path, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return l, nil
}

// Addrs tells what was bound: the admin socket, then the TCP address.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []net.Addr
	for _, d := range s.listeners {
		out = append(out, d.l.Addr())
	}
	return out
}

// Run serves until ctx ends, lets calls at work finish for a moment, and returns
// when nothing is left of it.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	doors := s.listeners
	s.mu.Unlock()
	if len(doors) == 0 {
		return errors.New("api: Run before Listen")
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, d := range doors {
		// Calls see ctx end only after the time that they are given to finish.
		base, cut := context.WithCancel(context.WithoutCancel(ctx))
		srv := &http.Server{
			Handler:           d.h,
			ReadHeaderTimeout: readHeaderTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			BaseContext:       func(net.Listener) context.Context { return base },
			ConnContext:       connContext,
		}
		g.Go(func() error {
			if err := srv.Serve(d.l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the HTTP API on %s: %w", d.l.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			defer cut()
			<-gctx.Done()
			bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			if err := srv.Shutdown(bound); err != nil {
				cut()
				srv.Close()
			}
			return nil
		})
	}
	return g.Wait()
}
