package api

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// triggersAtOnce are proposed side by side, so that they share log entries.
const triggersAtOnce = 16

func (s *Server) registerQueues(a huma.API) {
	const tag = "queues"
	register(a, call("GET", "/queues", tag, "list-queues", "Queues with their mail by age, like qshape, as JSON lines of QueueSummary", ScopeRead), s.listQueues)
	register(a, call("POST", "/queues/retry", tag, "retry-queues", "Try several or all queues now; answers with JSON lines of Progress", ScopeAdmin), s.retryQueues)
	register(a, call("GET", "/queues/{kind}/{name}", tag, "get-queue", "One queue", ScopeRead), s.getQueue)
	register(a, call("POST", "/queues/{kind}/{name}/hold", tag, "hold-queue", "Hold a whole queue, mail still to come included", ScopeAdmin), s.holdQueue)
	register(a, call("POST", "/queues/{kind}/{name}/release", tag, "release-queue", "End the hold of a whole queue; messages held one by one stay held", ScopeAdmin), s.releaseQueue)
	register(a, call("POST", "/queues/{kind}/{name}/retry", tag, "retry-queue", "Try one queue now", ScopeAdmin), s.retryQueue)
}

// QueuePath names a queue.
type QueuePath struct {
	Kind string `path:"kind" enum:"account,mailbox,out"`
	Name string `path:"name" doc:"login or domain"`
}

// queue is the name of a queue that can be: its account exists.
func (s *Server) queue(in QueuePath) (spool.QueueName, error) {
	return s.checkQueue(spool.QueueName(in.Kind + "/" + in.Name))
}

func (s *Server) checkQueue(q spool.QueueName) (spool.QueueName, error) {
	switch {
	case q.IsOut():
		d, err := domainNameOf(string(q.Domain()))
		return spool.OutQueue(d), err
	case q.Valid():
		login, err := loginOf(string(q.Login()))
		if err != nil {
			return "", err
		}
		acct, err := s.deps.Node.Directory().Account(login)
		if _, err := found(acct, err, "account", login); err != nil {
			return "", err
		}
		if q.IsMailbox() {
			return spool.MailboxQueue(login), nil
		}
		return spool.AccountQueue(login), nil
	}
	return "", mail.Fail(mail.Invalid, fmt.Sprintf("%q is not a queue: account/LOGIN, mailbox/LOGIN or out/DOMAIN", q))
}

func (s *Server) allQueues(after spool.QueueName, errp *error) iter.Seq[spool.Queue] {
	rd := s.deps.Node.Spool()
	return pages(pageRows, func(last *spool.Queue, err *error) iter.Seq[spool.Queue] {
		if last == nil {
			return rd.Queues(after, err)
		}
		return rd.Queues(last.Name, err)
	}, errp)
}

func (s *Server) listQueues(_ context.Context, in *struct {
	Page
	Ages  bool `query:"ages" default:"true" doc:"count messages by age; costs a look at every message"`
	Empty bool `query:"empty" doc:"also queues without mail"`
}) (*huma.StreamResponse, error) {
	return s.stream(func(emit func(any) error) error {
		all, err := s.newSummaries(s.deps.Node.Now())
		if err != nil {
			return err
		}
		defer all.close()
		left := in.Limit
		for q := range s.allQueues(spool.QueueName(in.After), &err) {
			if q.Messages == 0 && !in.Empty {
				continue
			}
			sum, serr := all.of(&q, in.Ages)
			if serr != nil {
				return serr
			}
			if werr := emit(sum); werr != nil {
				return werr
			}
			if left--; left == 0 {
				break
			}
		}
		return err
	}), nil
}

func (s *Server) getQueue(_ context.Context, in *QueuePath) (*body[wire.QueueSummary], error) {
	name, err := s.queue(*in)
	if err != nil {
		return nil, err
	}
	q, ok, err := s.deps.Node.Spool().Queue(name)
	if err == nil && !ok {
		err = mail.Fail(mail.NotFound, fmt.Sprintf("nothing was ever queued for %s", name))
	}
	if err != nil {
		return nil, err
	}
	sum, err := s.summarize(q, true, s.now())
	if err != nil {
		return nil, err
	}
	return &body[wire.QueueSummary]{*sum}, nil
}

func (s *Server) holdQueue(ctx context.Context, in *struct {
	QueuePath
	Body wire.QueueHold
}) (*struct{}, error) {
	name, err := s.queue(in.QueuePath)
	if err != nil {
		return nil, err
	}
	if name.IsMailbox() {
		return nil, mail.Fail(mail.Invalid, "a mailbox is never pushed, so there is nothing to hold")
	}
	if err := checkUntil(in.Body.Until); err != nil {
		return nil, err
	}
	return nil, s.deps.Node.HoldQueue(ctx, spool.HoldQueue{Queue: name, By: callerOf(ctx).Name, Reason: in.Body.Reason, Until: s.until(in.Body.Until)})
}

// now is the time that rows are compared with.
func (s *Server) now() time.Time { return s.deps.Node.Now().Std() }

// until is a moment that somebody read off his own clock, as a time of the rows:
// these may be ahead of the clock on the wall (see cluster.Node.Now).
func (s *Server) until(t time.Time) mail.Time {
	if t.IsZero() {
		return 0
	}
	if ahead := time.Until(s.now()); ahead > time.Second {
		t = t.Add(ahead)
	}
	return mail.At(t)
}

func checkUntil(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		return mail.Fail(mail.Invalid, fmt.Sprintf("until %s is in the past", t.Format(time.RFC3339)))
	}
	return nil
}

func (s *Server) releaseQueue(ctx context.Context, in *QueuePath) (*struct{}, error) {
	name, err := s.queue(*in)
	if err != nil {
		return nil, err
	}
	return nil, s.deps.Node.HoldQueue(ctx, spool.HoldQueue{Queue: name, Release: true, By: callerOf(ctx).Name})
}

func (s *Server) retryQueue(ctx context.Context, in *QueuePath) (*body[wire.Triggered], error) {
	name, err := s.queue(*in)
	if err != nil {
		return nil, err
	}
	t, err := s.deps.Node.Trigger(ctx, spool.Trigger{Queue: name, Cause: spool.CauseOperator, By: callerOf(ctx).Name})
	if err == nil && t.Denial == spool.NotPushed {
		err = mail.Fail(mail.Invalid, "a mailbox is never pushed")
	}
	if err != nil {
		return nil, err
	}
	state := map[spool.Denial]string{spool.Granted: "due", spool.Taken: "busy", spool.Empty: "empty", spool.Held: "held"}[t.Denial]
	return &body[wire.Triggered]{wire.Triggered{Messages: t.Messages, State: state}}, nil
}

// retryQueues counts queues: seen, and done where an attempt is due or at work.
func (s *Server) retryQueues(ctx context.Context, in *struct{ Body wire.QueueRetry }) (*huma.StreamResponse, error) {
	if in.Body.All == (len(in.Body.Queues) > 0) {
		return nil, mail.Fail(mail.Invalid, "name queues, or set all to true; not both")
	}
	var names []spool.QueueName
	for _, q := range in.Body.Queues {
		name, err := s.checkQueue(spool.QueueName(q))
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return s.progress(func(p *reporter) error {
		if !in.Body.All {
			return s.triggerAll(ctx, p, names)
		}
		var err error
		var some []spool.QueueName
		for q := range s.allQueues("", &err) {
			if q.Messages == 0 || q.Name.IsMailbox() {
				continue
			}
			if some = append(some, q.Name); len(some) == pageRows {
				if terr := s.triggerAll(ctx, p, some); terr != nil {
					return terr
				}
				some = some[:0]
			}
		}
		if terr := s.triggerAll(ctx, p, some); terr != nil {
			return terr
		}
		return err
	}), nil
}

func (s *Server) triggerAll(ctx context.Context, p *reporter, names []spool.QueueName) error {
	by := callerOf(ctx).Name
	results := make([]spool.Triggered, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(triggersAtOnce)
	for i, name := range names {
		g.Go(func() (err error) {
			results[i], err = s.deps.Node.Trigger(gctx, spool.Trigger{Queue: name, Cause: spool.CauseOperator, By: by})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, r := range results {
		p.Seen++
		switch r.Denial {
		case spool.Granted, spool.Taken:
			p.Done++
		case spool.Held:
			p.fail(fmt.Sprintf("queue %s is held or suspended", names[i]))
		default:
			p.Missing++
		}
	}
	return p.tell()
}
