package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// registerAll adds every call, one file per noun.
func (s *Server) registerAll(a huma.API) {
	s.registerStatus(a)
	s.registerAccounts(a)
	s.registerExchange(a)
	s.registerDomains(a)
	s.registerExplain(a)
	s.registerQueues(a)
	s.registerMessages(a)
	s.registerActions(a)
	s.registerDelivery(a)
	s.registerLogins(a)
	s.registerAudit(a)
}

const scopeMeta = "scope"

// call describes one operation.
func call(method, path, tag, id, summary string, scope Scope) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: wire.Prefix + path, Summary: summary, Tags: []string{tag},
		Metadata: map[string]any{scopeMeta: scope},
		Security: []map[string][]string{{"bearer": {string(scope)}}},
	}
}

// register adds one call whose failures are told as wire.Problem.
func register[I, O any](a huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	op.Responses = map[string]*huma.Response{"default": {
		Description: "Problem",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: a.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem")}},
	}}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, &failure{*problemOf(err)}
		}
		return out, nil
	})
}

// checkScope refuses callers whose token is for something else.
func (s *Server) checkScope(a huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		need, _ := ctx.Operation().Metadata[scopeMeta].(Scope)
		c := callerOf(ctx.Context())
		if need == "" || !c.Scope.allows(need) {
			s.metrics.refused.WithLabelValues("scope").Inc()
			huma.WriteErr(a, ctx, http.StatusForbidden, "this call needs a token of scope "+string(need)+", "+c.Name+" has "+string(c.Scope))
			return
		}
		next(ctx)
	}
}

// failure is a wire.Problem as an error of huma.
type failure struct{ wire.Problem }

var (
	_ huma.StatusError       = (*failure)(nil)
	_ huma.ContentTypeFilter = (*failure)(nil)
)

func (f *failure) Error() string             { return f.Detail }
func (f *failure) GetStatus() int            { return f.Status }
func (f *failure) ContentType(string) string { return "application/problem+json" }

// problemOf tells an error.
func problemOf(err error) *wire.Problem {
	kind := mail.KindOf(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		kind = mail.Unavailable
	}
	status := wire.StatusOf(kind)
	return &wire.Problem{Title: http.StatusText(status), Status: status, Kind: kind.String(), Detail: err.Error()}
}

// asProblem gives the errors that huma makes itself the same form.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := &wire.Problem{Title: e.Title, Status: e.Status, Kind: wire.KindOf(e.Status).String(), Detail: e.Detail}
	for _, d := range e.Errors {
		text := d.Message
		if d.Location != "" {
			text = d.Location + ": " + text
		}
		p.Errors = append(p.Errors, text)
	}
	if len(p.Errors) > 0 {
		p.Detail += ": " + strings.Join(p.Errors, "; ")
	}
	return p, nil
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, status int, kind mail.Kind, text string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(wire.Problem{Title: http.StatusText(status), Status: status, Kind: kind.String(), Detail: text})
}

// invalid makes the error for a request that can never succeed.
func invalid(err error) error { return &mail.Error{Kind: mail.Invalid, Err: err} }
