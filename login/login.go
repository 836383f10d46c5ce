// Package login learns that a customer is online or offline: from RADIUS
// accounting and from files dropped into a directory. The HTTP hook is in api.
package login

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
)

// Names of the sources in directory.Event.Source and in the log.
const (
	sourceRadius = "radius"
	sourceFile   = "file"
)

// stopGrace is how long requests that are being worked on may finish at a stop.
const stopGrace = 2 * time.Second

// Events takes what was learned. Login returns when the event is committed;
// mail.Unavailable when it was not, or nobody knows; mail.Invalid for an event
// that never can be.
type Events interface {
	Login(ctx context.Context, e directory.Event) (directory.Seen, error)
}

type metrics struct {
	events  *prometheus.CounterVec
	doubles *prometheus.CounterVec
	dropped *prometheus.CounterVec
	again   prometheus.Counter
	answer  prometheus.Histogram
	files   *prometheus.CounterVec
	waiting prometheus.Gauge
}

func newMetrics(r *metric.Registry) *metrics {
	return &metrics{
		events: r.Counters("login_events_total",
			"Login events by source (radius, file; see api_login_events_total for the others) and outcome: triggered, debounced, noted, duplicate, unknown, refused or failed (not committed).", "source", "outcome"),
		doubles: r.Counters("login_doubles_total", "Logins that break the one-session rule, by way: session or address.", "way"),
		dropped: r.Counters("radius_dropped_total",
			"RADIUS packets without an answer, by reason: client (unknown), authenticator (wrong secret), malformed, code, status (no Acct-Status-Type), flood (queue full), failed (not committed), panic.", "reason"),
		again:   r.Counter("radius_retransmitted_total", "RADIUS requests that were seen before: in flight, or answered again from memory."),
		answer:  r.Seconds("radius_answer_seconds", "Time from an accounting request to its answer."),
		files:   r.Counters("login_files_total", "Dropped login files by outcome: done, bad or failed (tried again).", "outcome"),
		waiting: r.Gauge("radius_waiting", "RADIUS requests waiting for a worker."),
	}
}

// Server learns logins from all sources that are configured.
type Server struct {
	cfg     Config
	host    host.Host
	dir     string // the watched directory; empty: none
	events  Events
	log     *slog.Logger
	metrics *metrics
	drops   drops
	rules   atomic.Pointer[rules]
	conn    net.PacketConn // nil: no RADIUS
}

// rules are what SetConfig changes.
type rules struct {
	clients    clients
	stripRealm bool
}

// New makes a server; Listen and Run follow. cfg has passed Check. A relative
// Files.Dir is below dataDir.
func New(cfg Config, h host.Host, dataDir string, events Events, log *slog.Logger, reg *metric.Registry) *Server {
	s := &Server{cfg: cfg, host: h, events: events, log: log, metrics: newMetrics(reg), drops: drops{log: log}}
	if s.dir = cfg.Files.Dir; s.dir != "" && s.dir[0] != '/' {
		s.dir = h.FS.PathJoin(dataDir, s.dir)
	}
	s.SetConfig(cfg)
	return s
}

// SetConfig changes what can be changed while the server runs: the clients and
// the realm rule. A list with errors changes nothing and is logged.
func (s *Server) SetConfig(cfg Config) {
	cs, err := newClients(cfg.Radius.Clients)
	if err != nil {
		s.log.Error("login settings not taken over", "err", err)
		if s.rules.Load() != nil {
			return
		}
	}
	s.rules.Store(&rules{cs, cfg.StripRealm})
}

// Listen opens the RADIUS port and makes the watched directory.
func (s *Server) Listen() error {
	if s.dir != "" {
		if err := s.host.FS.MkdirAll(s.host.FS.PathJoin(s.dir, badDir), dirMode); err != nil {
			return fmt.Errorf("login.files.dir: cannot make %s: %w; choose another directory or turn it off with an empty name", s.dir, err)
		}
		if info, err := s.host.FS.Stat(s.dir); err == nil && info.Mode().Perm()&0o002 != 0 {
			s.log.Warn("everybody on this machine may write into the login directory, and so say who is online; chmod o-w", "dir", s.dir, "mode", info.Mode())
		}
	}
	if s.cfg.Radius.Listen == "" {
		return nil
	}
	conn, err := s.host.Net.ListenPacket("udp", s.cfg.Radius.Listen)
	if err != nil {
		return fmt.Errorf("login.radius.listen: cannot listen on %s/udp: %w; stop what uses the port or choose another", s.cfg.Radius.Listen, err)
	}
	if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		c.SetReadBuffer(readBufferBytes) // a smaller one is no error: less of a flood is kept
	}
	s.conn = conn
	return nil
}

// Addrs is what Listen opened: the RADIUS address, or nothing.
func (s *Server) Addrs() []net.Addr {
	if s.conn == nil {
		return nil
	}
	return []net.Addr{s.conn.LocalAddr()}
}

// Close gives up what Listen opened, for when Run is never called.
func (s *Server) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// Run works until ctx ends; then requests in work have stopGrace to finish.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.conn != nil {
		g.Go(func() error { return s.serveRadius(ctx) })
	}
	if s.dir != "" {
		g.Go(func() error { return s.watchFiles(ctx) })
	}
	return g.Wait()
}

// tell gives an event to the directory, and counts and logs what became of it.
// from is where it came from: a client's address, a file and line.
func (s *Server) tell(ctx context.Context, e directory.Event, from string) (directory.Seen, error) {
	seen, err := s.events.Login(ctx, e)
	outcome := outcomeOf(seen, err)
	s.metrics.events.WithLabelValues(e.Source, outcome).Inc()
	attrs := []slog.Attr{
		slog.String("event", kindNames[e.Kind]), slog.String("outcome", outcome), slog.String("login", string(e.Login)),
		slog.String("source", e.Source), slog.String("from", from),
	}
	if e.Address.IsValid() {
		attrs = append(attrs, slog.String("address", e.Address.String()))
	}
	if e.NAS != "" {
		attrs = append(attrs, slog.String("nas", e.NAS), slog.String("session", e.Session))
	}
	level := slog.LevelInfo
	switch {
	case err != nil:
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("err", err.Error()))
	case seen.Double != directory.DoubleNone:
		level = slog.LevelWarn
		s.metrics.doubles.WithLabelValues(doubleNames[seen.Double]).Inc()
		attrs = append(attrs, slog.String("double", doubleNames[seen.Double]))
	case seen.Duplicate, e.Kind == directory.EventInterim && outcome == directory.OutcomeNoted:
		level = slog.LevelDebug // many, and they change nothing
	}
	switch {
	case e.Kind == directory.EventOn || e.Kind == directory.EventOff:
		attrs = append(attrs, slog.Int("sessions", seen.Sessions))
	case seen.Triggers:
		attrs = append(attrs, slog.Int64("queued", seen.Queued))
	}
	s.log.LogAttrs(ctx, level, "login", attrs...)
	return seen, err
}

func outcomeOf(seen directory.Seen, err error) string {
	switch {
	case permanent(err):
		return "refused"
	case err != nil:
		return "failed"
	}
	return seen.Outcome()
}

// permanent reports an error that the same event would meet again.
func permanent(err error) bool { return mail.KindOf(err) == mail.Invalid }

var kindNames = map[directory.EventKind]string{
	directory.EventStart: "start", directory.EventStop: "stop", directory.EventInterim: "interim",
	directory.EventOn: "accounting-on", directory.EventOff: "accounting-off",
}

var doubleNames = map[directory.Double]string{
	directory.DoubleSession: "session", directory.DoubleAddress: "address",
}
