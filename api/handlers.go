package api

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// handlers builds what stands behind the two doors.
func (s *Server) handlers() (admin, tcp http.Handler) {
	calls := http.NewServeMux()
	a := humago.New(calls, huma.Config{
		OpenAPI: &huma.OpenAPI{
			Info: &huma.Info{Title: "bsmtpd", Version: s.deps.Version,
				Description: "Accounts, domains, queues, delivery, logins and the audit of a bsmtpd node. Lists are JSON lines: one value per line; a last line {\"problem\":…} means that the list is not whole."},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	})
	a.UseMiddleware(s.checkScope(a))
	s.registerAll(a)
	calls.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, mail.NotFound, fmt.Sprintf("there is no %s %s; see %s/openapi.json", r.Method, r.URL.Path, wire.Prefix))
	})

	doc := sync.OnceValue(func() document { return newDocument(a) })
	open := http.NewServeMux()
	s.openPages(open, doc)
	open.Handle("/", s.bearer(calls))

	own := http.NewServeMux()
	s.openPages(own, doc)
	own.HandleFunc("GET /debug/pprof/", pprof.Index)
	own.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	own.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	own.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	own.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	own.Handle("/", socketCaller(calls))
	return s.guard("socket", own), s.guard("tcp", open)
}

// document is the OpenAPI document. It is made when it is first asked for: that
// takes longer than the rest of a start. (huma's own page would make it without a
// lock.)
type document struct{ json, yaml []byte }

func newDocument(a huma.API) document {
	js, err := a.OpenAPI().MarshalJSON()
	if err != nil {
		panic("api: the OpenAPI document cannot be written: " + err.Error())
	}
	yaml, err := a.OpenAPI().YAML()
	if err != nil {
		panic("api: the OpenAPI document cannot be written: " + err.Error())
	}
	return document{js, yaml}
}

// openPages need no token.
func (s *Server) openPages(mux *http.ServeMux, doc func() document) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.deps.NotReady(); len(why) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, strings.Join(why, "\n"))
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.deps.Metrics.Gatherer(), promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 30 * time.Second}))
	mux.HandleFunc("GET "+wire.Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(doc().json)
	})
	mux.HandleFunc("GET "+wire.Prefix+"/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+yaml")
		w.Write(doc().yaml)
	})
}

// guard is the top of every call: deadlines, the counter, and the end of a panic.
func (s *Server) guard(door string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := &response{ResponseWriter: w}
		cfg := s.config()
		rc := http.NewResponseController(w)
		rc.SetReadDeadline(time.Now().Add(cfg.ReadTimeout))
		if !strings.HasPrefix(r.URL.Path, "/debug/pprof/") { // a profile takes as long as it is asked to
			rc.SetWriteDeadline(time.Now().Add(cfg.WriteTimeout))
		}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.metrics.panics.Inc()
				s.log.Error("a call of the API panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				if rw.status == 0 {
					writeProblem(rw, http.StatusInternalServerError, mail.Other, "the server met a bug; its log has the details")
				} else {
					panic(http.ErrAbortHandler) // so that the caller does not take the answer for whole
				}
			}
			s.metrics.requests.WithLabelValues(door, fmt.Sprintf("%dxx", max(rw.status, 200)/100)).Inc()
		}()
		next.ServeHTTP(rw, r)
	})
}

// response remembers the status.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
