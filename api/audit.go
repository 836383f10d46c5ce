package api

import (
	"context"
	"iter"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
)

func (s *Server) registerAudit(a huma.API) {
	register(a, call("GET", "/audit", "audit", "list-audit", "Who changed what, as JSON lines of AuditRecord", ScopeRead), s.listAudit)
}

func (s *Server) listAudit(_ context.Context, in *struct {
	Order  string `query:"order" enum:"newest,oldest" default:"newest" doc:"which comes first"`
	After  uint64 `query:"after" doc:"cursor: go on after the record of this number, in the order asked for"`
	Limit  int    `query:"limit" minimum:"0" doc:"at most so many rows; 0: all"`
	Object string `query:"object" doc:"only of this object: account/jansen"`
	By     string `query:"by" doc:"only by this person or program"`
	Action string `query:"action" doc:"only actions that begin so: queue, account set"`
}) (*huma.StreamResponse, error) {
	dir := s.deps.Node.Directory()
	seq := func(errp *error) iter.Seq[directory.AuditRecord] {
		all := pages(pageRows, func(last *directory.AuditRecord, err *error) iter.Seq[directory.AuditRecord] {
			after := in.After
			if last != nil {
				after = last.Seq
			}
			if in.Order == "oldest" {
				return dir.Audit(after, err)
			}
			if last != nil && last.Seq == 1 {
				return func(func(directory.AuditRecord) bool) {} // before 1 there is none, and 0 is the newest
			}
			return dir.AuditNewest(after, err)
		}, errp)
		return func(yield func(directory.AuditRecord) bool) {
			for r := range all {
				if in.Object != "" && r.Object != in.Object || in.By != "" && r.By != in.By || !strings.HasPrefix(r.Action, in.Action) {
					continue
				}
				if !yield(r) {
					return
				}
			}
		}
	}
	return list(s, seq, in.Limit, func(r directory.AuditRecord) any {
		return wire.AuditRecord{Seq: r.Seq, At: r.At.Std(), By: r.By, Action: r.Action, Object: r.Object, Before: r.Before, After: r.After, Reason: r.Reason}
	}), nil
}
