package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func (s *Server) registerStatus(a huma.API) {
	register(a, call("GET", "/status", "status", "status", "How the node is, and what it holds", ScopeRead), s.status)
}

func (s *Server) status(context.Context, *struct{}) (*body[wire.Status], error) {
	out := wire.Status{Node: s.deps.Name, Version: s.deps.Version, Started: s.started.UTC(), Reasons: s.deps.NotReady(), Warnings: s.deps.Warnings(), Leader: s.deps.Leader()}
	out.Ready = len(out.Reasons) == 0
	now := s.deps.Node.Now()
	var err error
	for q := range s.allQueues("", &err) {
		if q.Messages == 0 {
			continue
		}
		out.Queues++
		out.Messages += q.Messages
		out.Bytes += q.Bytes
		if q.Failing {
			out.Failing++
		}
		if q.Claim != nil && q.Claim.Until > now {
			out.Active++
		}
		if q.Hold != nil {
			out.Held++
		}
	}
	if err != nil && mail.KindOf(err) != mail.Broken {
		return nil, err
	}
	sweep, err := s.deps.Node.Spool().LastSweep()
	if err != nil {
		return nil, err
	}
	out.Sweep = sweep.Std()
	return &body[wire.Status]{out}, nil
}
