package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// maxCheckedDomains bounds the look-ups of one explanation; the rest is shown
// unchecked.
const maxCheckedDomains = 20

func (s *Server) registerExplain(a huma.API) {
	register(a, call("GET", "/accounts/{login}/explain", "accounts", "explain-account", "Why is my mail not arriving? All that bears on it, each with a verdict and what to do", ScopeRead), s.explain)
}

// explaining gathers the facts of one account, then judges them.
type explaining struct {
	s      *Server
	now    time.Time
	acct   *directory.Account
	route  directory.Route
	queue  spool.Queue
	known  bool // the queue has a row
	sus    *spool.Suspension
	use    quota.Usage
	limit  int64
	set    spool.Settings
	online directory.Presence
	probe  *probe
	out    wire.Explain

	unknown error // why it is not known who is online
}

func (s *Server) explain(ctx context.Context, in *struct {
	LoginPath
	DNS   bool `query:"dns" default:"true" doc:"look up MX records and routes"`
	Probe bool `query:"probe" default:"true" doc:"connect to the customer's server and read its banner"`
}) (*body[wire.Explain], error) {
	login, err := loginOf(in.Login)
	if err != nil {
		return nil, err
	}
	e := &explaining{s: s, now: s.now()}
	e.out = wire.Explain{Login: login, At: e.now.UTC(), Verdict: wire.Skipped, Domains: []wire.DomainCheck{}}
	if err := e.read(login); err != nil {
		return nil, err
	}
	if err := e.look(ctx, in.DNS, in.Probe); err != nil {
		return nil, err
	}
	e.judge()
	return &body[wire.Explain]{e.out}, nil
}

// read takes what the rows know.
func (e *explaining) read(login mail.Login) error {
	node := e.s.deps.Node
	var err error
	e.acct, err = node.Directory().Account(login)
	if e.acct, err = found(e.acct, err, "account", login); err != nil {
		return err
	}
	e.route = directory.RouteOf(e.acct, nil)
	name := spool.AccountQueue(login)
	if e.queue, e.known, err = node.Spool().Queue(name); err != nil {
		return err
	}
	if e.sus, err = node.Spool().Suspended(name, mail.At(e.now)); err != nil {
		return err
	}
	if e.use, err = node.Quota().Of(login); err != nil {
		return err
	}
	now, life := e.s.sessions()
	e.online, e.unknown = node.Directory().Presence(login, now, life)
	if e.unknown == nil {
		p := presenceOut(&e.online)
		e.out.Presence = &p
	}
	var limits directory.Limits
	e.set, limits = node.Settings()
	e.limit = limits.QuotaOf(e.acct)
	if e.known {
		sum, err := e.s.summarize(e.queue, true, e.now)
		if err != nil {
			return err
		}
		e.out.Queue = sum
		e.out.Banner = e.queue.LastBanner
	}
	return nil
}

// look asks the outside world, all questions at once.
func (e *explaining) look(ctx context.Context, dns, probing bool) error {
	domains, err := e.s.deps.Node.Directory().DomainsOf(e.acct.Login)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, e.s.config().ProbeTimeout)
	defer cancel()
	e.out.Domains = make([]wire.DomainCheck, len(domains))
	if len(domains) > 0 {
		e.route = directory.RouteOf(e.acct, &domains[0])
	}
	var wg sync.WaitGroup
	if probing && e.route != (directory.Route{}) {
		wg.Go(func() {
			p := e.s.probeRoute(ctx, e.route)
			e.probe = &p
		})
	}
	for i := range domains {
		if !dns || i >= maxCheckedDomains {
			e.out.Domains[i] = e.s.domainCheck(bound, e.acct, &domains[i], false)
			continue
		}
		wg.Go(func() { e.out.Domains[i] = e.s.domainCheck(bound, e.acct, &domains[i], true) })
	}
	wg.Wait()
	return nil
}

// judge puts what is likelier to be the reason first, for the first of the worst
// is the summary. Mail that waits has come in, so what keeps it is on the way out.
func (e *explaining) judge() {
	in := []wire.Check{e.domains(), e.quota()}
	checks := []wire.Check{e.active(), e.held(), e.routed(), e.port25(), e.banner(), e.openRelay(), e.lastAttempt(),
		e.next(), e.waiting(), e.presence(), e.doubleLogin(), e.debounce()}
	if e.queue.Messages > 0 {
		checks = append(checks, in...)
	} else {
		checks = slices.Insert(checks, 1, in...)
	}
	for _, c := range checks {
		e.out.Checks = append(e.out.Checks, c)
		e.out.Verdict = wire.Worse(e.out.Verdict, c.Verdict)
	}
	e.out.Summary = "nothing stands in the way of this account's mail"
	for _, c := range e.out.Checks {
		if c.Verdict == e.out.Verdict && c.Verdict != wire.OK && c.Verdict != wire.Skipped {
			e.out.Summary = c.Found
			if c.Advice != "" {
				e.out.Summary += ": " + c.Advice
			}
			return
		}
	}
}

func verdict(name string, v wire.Verdict, advice, format string, args ...any) wire.Check {
	return wire.Check{Name: name, Verdict: v, Found: fmt.Sprintf(format, args...), Advice: advice}
}
