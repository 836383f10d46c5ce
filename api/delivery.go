package api

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func (s *Server) registerDelivery(a huma.API) {
	const tag = "delivery"
	register(a, call("GET", "/delivery/suspensions", tag, "list-suspensions", "Where delivery is suspended", ScopeRead), s.listSuspensions)
	register(a, call("POST", "/delivery/suspensions", tag, "suspend", "Suspend delivery; mail is still taken in and kept", ScopeAdmin), s.suspend)
	register(a, call("DELETE", "/delivery/suspensions", tag, "resume", "End a suspension", ScopeAdmin), s.resume)
	register(a, call("GET", "/delivery/sources", tag, "sources", "The addresses from which mail is pushed, with configuration for customers' servers and firewalls", ScopeRead), s.sources)
}

func (s *Server) listSuspensions(context.Context, *struct{}) (*body[[]wire.Suspension], error) {
	rules, err := s.deps.Node.Spool().Suspensions()
	if err != nil {
		return nil, err
	}
	now := s.deps.Node.Now()
	out := []wire.Suspension{}
	for _, r := range rules {
		if inForce(&r.Hold, now) {
			out = append(out, wire.Suspension{Scope: string(r.Scope), Reason: r.Hold.Reason, Until: r.Hold.Until.Std(), By: r.Hold.By, At: r.Hold.At.Std()})
		}
	}
	return &body[[]wire.Suspension]{out}, nil
}

func (s *Server) scope(text string) (spool.Scope, error) {
	if text == string(spool.ScopeAll) {
		return spool.ScopeAll, nil
	}
	q, err := s.checkQueue(spool.QueueName(text))
	if mail.KindOf(err) == mail.Invalid {
		return "", mail.Fail(mail.Invalid, fmt.Sprintf("scope %q: use all, account/LOGIN or out/DOMAIN", text))
	}
	if err == nil && q.IsMailbox() {
		err = mail.Fail(mail.Invalid, "a mailbox is never pushed, so there is nothing to suspend")
	}
	return spool.Scope(q), err
}

func (s *Server) suspend(ctx context.Context, in *struct{ Body wire.Suspension }) (*struct{}, error) {
	scope, err := s.scope(in.Body.Scope)
	if err != nil {
		return nil, err
	}
	if err := checkUntil(in.Body.Until); err != nil {
		return nil, err
	}
	return nil, s.deps.Node.Suspend(ctx, spool.Suspend{Scope: scope, By: callerOf(ctx).Name, Reason: in.Body.Reason, Until: s.until(in.Body.Until)})
}

func (s *Server) resume(ctx context.Context, in *struct {
	Scope string `query:"scope" required:"true" doc:"all, account/LOGIN or out/DOMAIN"`
}) (*struct{}, error) {
	rules, err := s.deps.Node.Spool().Suspensions()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if string(r.Scope) == in.Scope {
			return nil, s.deps.Node.Suspend(ctx, spool.Suspend{Scope: r.Scope, Resume: true, By: callerOf(ctx).Name})
		}
	}
	return nil, mail.Fail(mail.NotFound, fmt.Sprintf("delivery is not suspended for %s", in.Scope))
}
