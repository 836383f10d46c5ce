package bounce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

const (
	pageRows   = 100             // owed rows that are read at once
	lookAgain  = time.Minute     // between two looks without a Wake
	pauseFirst = time.Second     // after a failure; doubles
	pauseMax   = 1 * time.Minute // and ends here
)

// Why a notification is given to nobody: labels of the counter.
const (
	waivedRefused = "refused"
	waivedSender  = "sender"
	waivedPoison  = "poison"
)

// Config is what an operator can set.
type Config struct {
	Locale    string    `key:"locale" default:"en" doc:"Language of notifications to senders who have no account here: en or nl. Senders with an account get theirs." reload:"yes"`
	MaxReturn mail.Size `key:"max_return" default:"50KiB" doc:"Largest message that is returned in full with a notification, when its sender asked for that with RET=FULL. Of larger ones only the headers are returned. Zero: always only the headers." reload:"yes"`
	From      string    `key:"from" default:"" doc:"From header of notifications. Empty: Mail Delivery System <MAILER-DAEMON@hostname>. Their envelope sender is always empty." reload:"yes"`
	Parallel  int       `key:"parallel" default:"8" doc:"Notifications that are composed and queued at the same time."`
}

// maxReturnLimit bounds the memory of one notification.
const maxReturnLimit = 10 << 20

// Check reports what is not possible.
func (c Config) Check() error {
	var errs []error
	if !Locale(c.Locale).Valid() {
		errs = append(errs, fmt.Errorf("locale: %q is not known; use en or nl", c.Locale))
	}
	if c.MaxReturn < 0 || c.MaxReturn > maxReturnLimit {
		errs = append(errs, fmt.Errorf("max_return: %s is not allowed; use 0 to %s", c.MaxReturn, mail.Size(maxReturnLimit)))
	}
	if c.Parallel < 1 || c.Parallel > 64 {
		errs = append(errs, fmt.Errorf("parallel: %d is not allowed; use 1 to 64", c.Parallel))
	}
	if c.From != "" {
		o := Options{Hostname: "localhost", From: c.From, Boundary: "x"}
		if err := check(&spool.Owed{From: "a@b", To: make([]spool.OwedRecipient, 1)}, &o); err != nil {
			errs = append(errs, fmt.Errorf("from: %q is not a header address; write for example Mail Delivery System <postmaster@example.net>", c.From))
		}
	}
	return errors.Join(errs...)
}

// Spool is what is owed, and the bodies that are kept for it.
type Spool interface {
	Owed(after spool.OwedKey, limit int) ([]spool.Owed, error)
	Body(id spool.BodyID) (io.ReadCloser, error)
}

var _ Spool = spool.Reader{}

// Queue takes notifications.
type Queue interface {
	// Enqueue with Settles queues the notification and clears the owed row in
	// one command. mail.NotFound: the row is not there any more. An answer
	// with ID 0: the target refused it, and the row still stands.
	Enqueue(ctx context.Context, m spool.Enqueue, body io.Reader) (spool.Enqueued, error)
	// Waive clears the row without a notification; mail.NotFound as above.
	Waive(ctx context.Context, w spool.Waive) error
}

// Place is where a notification goes.
type Place struct {
	Queue  spool.QueueName // of the address's account or mailbox
	Locale Locale          // of the account; empty: not known
}

// Resolver knows whose mail is kept here.
type Resolver interface {
	// Resolve says where mail to an address goes. here false: its domain is
	// not one of ours, and it goes to the world. mail.NotFound or mail.Denied:
	// the domain is ours, and the address takes no mail.
	Resolve(to mail.Address) (p Place, here bool, err error)
}

// Deps are the parts that a Server stands on.
type Deps struct {
	Hostname string // this server's, a domain name
	Host     host.Host
	Spool    Spool
	Queue    Queue
	Resolver Resolver
	Metrics  *metric.Registry
	Log      *slog.Logger
	Mail     *metric.MailLog
}

// Server notifies senders. Wake and SetConfig may be called at any time; Run
// once. Where several nodes run it on the same rows they do work twice, but
// senders are told once, for the row is cleared with the notification.
type Server struct {
	d    Deps
	m    metrics
	wake chan struct{}

	mu   sync.Mutex // guards cfg and rand; nothing waits under it
	cfg  Config
	rand *rand.Rand
}

type metrics struct {
	queued  *prometheus.CounterVec
	waived  *prometheus.CounterVec
	retried prometheus.Counter
	panics  prometheus.Counter
	delay   prometheus.Histogram
}

// New makes a Server from a checked Config.
func New(cfg Config, d Deps) *Server {
	return &Server{d: d, cfg: cfg, wake: make(chan struct{}, 1), rand: d.Host.Rand("bounce"), m: metrics{
		queued:  d.Metrics.Counters("bounce_queued_total", "Notifications queued to senders, by what they report: failed, delayed or relayed.", "action"),
		waived:  d.Metrics.Counters("bounce_waived_total", "Notifications that were owed and could be given to nobody: refused (the sender's account is full or gone), sender (no such address here), poison (could not be composed).", "cause"),
		retried: d.Metrics.Counter("bounce_retried_total", "Attempts to queue a notification that failed and are made again."),
		panics:  d.Metrics.Counter("bounce_panics_total", "Panics while composing a notification; each is a bug, and its row was waived."),
		delay:   d.Metrics.Seconds("bounce_delay_seconds", "Time from owing a notification to having it queued."),
	}}
}

// SetConfig puts a checked Config in force for the next notification; Parallel
// for the next page.
func (s *Server) SetConfig(cfg Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg
}

func (s *Server) config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

// Wake says that a notification is owed. It never blocks.
func (s *Server) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run notifies until ctx ends, whose end is no error.
func (s *Server) Run(ctx context.Context) error {
	pause := pauseFirst
	for ctx.Err() == nil {
		look := lookAgain
		if left := s.pass(ctx); left > 0 {
			// At least so long also when woken: new rows do not make an old
			// trouble better.
			if host.Sleep(ctx, pauseFirst) != nil {
				return nil
			}
			look, pause = pause, min(2*pause, pauseMax)
		} else {
			pause = pauseFirst
		}
		timer := time.NewTimer(look)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// pass goes over everything that is owed once, and returns how many rows it
// had to leave for later.
func (s *Server) pass(ctx context.Context) (left int) {
	var after spool.OwedKey
	for ctx.Err() == nil {
		page, err := s.d.Spool.Owed(after, pageRows)
		if err != nil {
			s.d.Log.Error("bounce: read what is owed", "err", err)
			if mail.KindOf(err) == mail.Broken {
				return left // only damaged rows are left: somebody has to repair them
			}
			return left + 1
		}
		failed, down := s.page(ctx, page)
		left += failed
		if len(page) < pageRows || down {
			return left
		}
		after = page[len(page)-1].Key
	}
	return left
}

// page deals with some rows. down: all failed for a reason that lies with the
// node and not with them.
func (s *Server) page(ctx context.Context, page []spool.Owed) (failed int, down bool) {
	errs := make([]error, len(page))
	var g errgroup.Group
	g.SetLimit(max(1, s.config().Parallel))
	for i := range page {
		g.Go(func() error {
			errs[i] = s.notify(ctx, page[i])
			return nil
		})
	}
	g.Wait()
	var last error
	nodes := 0
	for _, err := range errs {
		if err != nil {
			failed++
			last = err
			if k := mail.KindOf(err); k == mail.Unavailable || k == mail.LowSpace {
				nodes++
			}
		}
	}
	if failed > 0 && ctx.Err() == nil {
		s.m.retried.Add(float64(failed))
		s.d.Log.Warn("bounce: notifications wait and are tried again", "rows", failed, "err", last)
	}
	return failed, nodes > 0 && nodes == len(page)
}

// notify deals with one row. An error: it still stands, try later.
func (s *Server) notify(ctx context.Context, o spool.Owed) error {
	if o.From.IsNull() {
		return s.waive(ctx, o, waivedPoison, "the null sender is never told anything")
	}
	place, here, err := s.d.Resolver.Resolve(o.From)
	switch kind := mail.KindOf(err); {
	case err != nil && (kind == mail.NotFound || kind == mail.Denied || kind == mail.Invalid):
		return s.waive(ctx, o, waivedSender, err.Error())
	case err != nil:
		return fmt.Errorf("find out where mail to %s goes: %w", o.From, err)
	case !here:
		place.Queue = spool.OutQueue(o.From.Domain())
	}
	n, err := s.compose(o, place.Locale)
	var wrong *OptionsError
	if errors.As(err, &wrong) {
		return fmt.Errorf("no notification can be composed: %w", wrong)
	}
	if err != nil {
		s.d.Log.Error("bounce: a notification cannot be composed; its row is dropped, please report this",
			"id", o.Key.ID.String(), "queue", string(o.Key.Queue), "err", err)
		return s.waive(ctx, o, waivedPoison, err.Error())
	}
	got, err := s.d.Queue.Enqueue(ctx, spool.Enqueue{
		Envelope: mail.Envelope{From: mail.Null, UTF8: n.UTF8, EightBit: n.EightBit},
		Targets:  []spool.Target{{Queue: place.Queue, To: []mail.Recipient{{Address: o.From, Notify: mail.NotifyNever}}}},
		Size:     int64(len(n.Body)),
		Settles:  &o.Key,
	}, bytes.NewReader(n.Body))
	switch kind := mail.KindOf(err); {
	case kind == mail.NotFound:
		return nil // another node was faster
	case kind == mail.Invalid:
		s.d.Log.Error("bounce: a notification was refused as invalid; its row is dropped, please report this",
			"id", o.Key.ID.String(), "err", err)
		return s.waive(ctx, o, waivedPoison, err.Error())
	case err != nil:
		return fmt.Errorf("queue the notification about %s: %w", o.Key.ID, err)
	case got.ID == 0:
		return s.waive(ctx, o, waivedRefused, refusalText(place.Queue, got))
	}
	action := actionName(worst(&o))
	s.m.queued.WithLabelValues(action).Inc()
	s.m.delay.Observe(max(0, mail.At(time.Now()).Sub(o.Since).Seconds()))
	s.d.Mail.Bounced(o.Key.ID, got.ID, o.From, action)
	return nil
}

func refusalText(queue spool.QueueName, got spool.Enqueued) string {
	for _, t := range got.Targets {
		switch t.Refusal {
		case spool.OverQuota:
			return fmt.Sprintf("the sender's own queue %s is full (%s of %s)", queue, mail.Size(t.Usage), mail.Size(t.Quota))
		case spool.NoAccount:
			return fmt.Sprintf("the sender's account of %s has gone", queue)
		}
	}
	return fmt.Sprintf("queue %s does not take it", queue)
}

func (s *Server) waive(ctx context.Context, o spool.Owed, cause, reason string) error {
	err := s.d.Queue.Waive(ctx, spool.Waive{Key: o.Key, Reason: strings.ToValidUTF8(reason[:min(len(reason), spool.MaxWordsBytes)], "")})
	switch {
	case mail.KindOf(err) == mail.NotFound:
		return nil // another node was faster
	case err != nil:
		return fmt.Errorf("drop the notification about %s: %w", o.Key.ID, err)
	}
	s.m.waived.WithLabelValues(cause).Inc()
	s.d.Mail.Unbounced(o.Key.ID, reason)
	return nil
}

// compose opens the original and composes. A panic is an error of this row.
func (s *Server) compose(o spool.Owed, l Locale) (n Notice, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.m.panics.Inc()
			s.d.Log.Error("bounce: panic while composing", "id", o.Key.ID.String(), "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	cfg := s.config()
	if !l.Valid() {
		l = Locale(cfg.Locale)
	}
	opt := Options{Hostname: s.d.Hostname, From: cfg.From, Locale: l, Now: mail.At(time.Now()),
		Boundary: s.boundary(), MaxReturn: int64(cfg.MaxReturn)}
	body, err := s.d.Spool.Body(o.Body)
	if err != nil {
		s.d.Log.Error("bounce: the original is not returned, for it cannot be read", "id", o.Key.ID.String(), "err", err)
		return Compose(o, nil, opt)
	}
	defer body.Close()
	n, err = Compose(o, body, opt)
	var unread *OriginalError
	if errors.As(err, &unread) {
		s.d.Log.Error("bounce: the original is not returned, for it cannot be read", "id", o.Key.ID.String(), "err", err)
		return Compose(o, nil, opt)
	}
	return n, err
}

// boundary cannot be foreseen by whoever wrote the original.
func (s *Server) boundary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "dsn" + strconv.FormatUint(s.rand.Uint64(), 36) + strconv.FormatUint(s.rand.Uint64(), 36)
}
