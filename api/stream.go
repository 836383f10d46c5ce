package api

import (
	"bufio"
	"encoding/json"
	"iter"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

var problemType = reflect.TypeFor[wire.Problem]()

const (
	pageRows   = 200  // rows read before any of them is written
	agesRows   = 5000 // the same of small rows that are not written
	flushEvery = time.Second
	lineBuffer = 32 << 10
)

// stream answers with JSON lines. f writes them with emit, whose error means that
// the caller has gone; any error that f returns becomes the last line.
func (s *Server) stream(f func(emit func(any) error) error) *huma.StreamResponse {
	return s.streamFlush(func(emit func(any) error, _ func()) error { return f(emit) })
}

func (s *Server) streamFlush(f func(emit func(any) error, flush func()) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", wire.JSONLines)
		_, w := humago.Unwrap(ctx)
		out := s.newLines(w)
		if err := f(out.emit, out.flush); err != nil && out.err == nil {
			out.emit(wire.Ending{Problem: problemOf(err)})
		}
		out.flush()
	}}
}

// lines writes JSON lines to a caller, each part within the write timeout.
type lines struct {
	rc    *http.ResponseController
	buf   *bufio.Writer
	enc   *json.Encoder
	limit func() time.Duration
	last  time.Time
	err   error // the first; nothing is written after it
}

func (s *Server) newLines(w http.ResponseWriter) *lines {
	l := &lines{rc: http.NewResponseController(w), limit: func() time.Duration { return s.config().WriteTimeout }, last: time.Now()}
	l.buf = bufio.NewWriterSize(deadlineWriter{w, l}, lineBuffer)
	l.enc = json.NewEncoder(l.buf)
	l.enc.SetEscapeHTML(false)
	return l
}

type deadlineWriter struct {
	w http.ResponseWriter
	l *lines
}

func (d deadlineWriter) Write(b []byte) (int, error) {
	d.l.rc.SetWriteDeadline(time.Now().Add(d.l.limit()))
	return d.w.Write(b)
}

func (l *lines) emit(v any) error {
	if l.err == nil {
		l.err = l.enc.Encode(v)
	}
	if l.err == nil && time.Since(l.last) >= flushEvery {
		l.flush()
	}
	return l.err
}

func (l *lines) flush() {
	l.last = time.Now()
	if l.err == nil {
		l.err = l.buf.Flush()
	}
	if l.err == nil {
		l.err = l.rc.Flush()
	}
}

// pages runs through a sequence in stretches: no iterator of the database stays
// open while a slow caller is written to. from gives what comes after a row; nil
// begins; rows is the length of a stretch. A broken row is passed over, and *errp
// says so at the end.
func pages[T any](rows int, from func(after *T, errp *error) iter.Seq[T], errp *error) iter.Seq[T] {
	return func(yield func(T) bool) {
		var last *T
		var page []T // most queues are short
		for {
			page = page[:0]
			var err error
			for v := range from(last, &err) {
				if page = append(page, v); len(page) == rows {
					break
				}
			}
			if err != nil {
				*errp = err
				if mail.KindOf(err) != mail.Broken {
					return
				}
			}
			for _, v := range page {
				if !yield(v) {
					return
				}
			}
			if len(page) < rows {
				return
			}
			v := page[len(page)-1]
			last = &v
		}
	}
}

// limited ends a sequence after n rows; 0: never.
func limited[T any](seq iter.Seq[T], n int) iter.Seq[T] {
	if n == 0 {
		return seq
	}
	return func(yield func(T) bool) {
		left := n
		for v := range seq {
			left--
			if !yield(v) || left == 0 {
				return
			}
		}
	}
}

// list streams a sequence, each row turned by row.
func list[T any](s *Server, seq func(errp *error) iter.Seq[T], limit int, row func(T) any) *huma.StreamResponse {
	return s.stream(func(emit func(any) error) error {
		var err error
		for v := range limited(seq(&err), limit) {
			if werr := emit(row(v)); werr != nil {
				return werr
			}
		}
		return err
	})
}
