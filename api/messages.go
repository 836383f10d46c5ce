package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func (s *Server) registerMessages(a huma.API) {
	const tag = "messages"
	register(a, call("GET", "/messages", tag, "list-messages", "Messages that match, as JSON lines of QueueRow", ScopeRead), s.listMessages)
	register(a, call("GET", "/messages/{id}", tag, "get-message", "All that is known of one message", ScopeRead), s.getMessage)
	text := call("GET", "/messages/{id}/body", tag, "get-body", "The text of a message, or its headers alone", ScopeAdmin)
	register(a, text, s.getBody)
}

// separates queue and ID in a cursor.
const cursorSep = ":"

func parseCursor(text string) (cursor, error) {
	if text == "" {
		return cursor{}, nil
	}
	queue, id, _ := strings.Cut(text, cursorSep)
	n, err := mail.ParseID(id)
	if err != nil || !spool.QueueName(queue).Valid() {
		return cursor{}, mail.Fail(mail.Invalid, fmt.Sprintf("after: %q is not QUEUE:ID, as the last row of the list before has them", text))
	}
	return cursor{Queue: spool.QueueName(queue), ID: n}, nil
}

func (s *Server) listMessages(_ context.Context, in *struct {
	wire.Filter
	After string `query:"after" doc:"cursor: go on after this row, QUEUE:QUEUE_ID"`
	Limit int    `query:"limit" minimum:"0" doc:"at most so many rows; 0: all"`
}) (*huma.StreamResponse, error) {
	m, err := newMatcher(&in.Filter, s.now())
	if err != nil {
		return nil, err
	}
	after, err := parseCursor(in.After)
	if err != nil {
		return nil, err
	}
	return s.stream(func(emit func(any) error) error {
		var err error
		for h := range limited(s.find(m, after, &err), in.Limit) {
			if werr := emit(rowOut(&h)); werr != nil {
				return werr
			}
		}
		return err
	}), nil
}

// rowOut gives a message the names of postqueue -j.
func rowOut(h *hit) wire.QueueRow {
	out := wire.QueueRow{
		QueueName: h.state, QueueID: h.ID.String(), ArrivalTime: h.Arrived.Std().Unix(), MessageSize: h.Size, Sender: string(h.From),
		Recipients: make([]wire.Recipient, 0, len(h.To)), Account: h.Queue.Login(), Queue: string(h.Queue), Attempts: h.Attempts,
	}
	if h.From.IsNull() {
		out.Sender = wire.NullSender
	}
	words := ""
	if h.queue != nil {
		if h.queue.Next != 0 && h.state != wire.StateHold {
			out.NextAttempt = max(h.queue.Next, h.RetryAt).Std().Unix()
		}
		if h.queue.Failing {
			words = h.queue.LastWords
			if h.Arrived <= h.queue.LastAttempt {
				out.Failures = h.queue.Failures
			}
		}
	}
	for _, r := range h.To {
		reason := r.Last.String()
		if reason == "" {
			reason = words // nothing was said about it: why its queue waits
		}
		out.Recipients = append(out.Recipients, wire.Recipient{Address: string(r.Address), DelayReason: reason})
	}
	return out
}

func infoOut(h *hit) wire.MessageInfo {
	out := wire.MessageInfo{QueueRow: rowOut(h), Arrived: h.Arrived.Std(), EnvID: h.EnvID, UTF8: h.UTF8, EightBit: h.EightBit,
		Hold: holdOut(h.Hold), RetryAt: h.RetryAt.Std(), Expires: h.Expires.Std()}
	switch h.Return {
	case mail.ReturnFull:
		out.Return = "FULL"
	case mail.ReturnHeaders:
		out.Return = "HDRS"
	}
	if r := h.removed; r != nil {
		out.Removed = &wire.Hold{By: r.By, Reason: r.Reason, At: r.At.Std(), Until: r.Until.Std()}
	}
	return out
}

// IDPath names a message.
type IDPath struct {
	ID string `path:"id" doc:"queue ID"`
}

// hits reads all rows of a message, or NotFound.
func (s *Server) hits(text string) ([]hit, error) {
	id, err := mail.ParseID(text)
	if err != nil {
		return nil, invalid(err)
	}
	rows, err := s.byID(id, s.deps.Node.Now())
	if err == nil && len(rows) == 0 {
		err = mail.Fail(mail.NotFound, fmt.Sprintf("there is no message %s: it was delivered, bounced, collected, or removed longer ago than it is kept", id))
	}
	return rows, err
}

func (s *Server) getMessage(_ context.Context, in *IDPath) (*body[wire.Message], error) {
	rows, err := s.hits(in.ID)
	if err != nil {
		return nil, err
	}
	out := wire.Message{QueueID: rows[0].ID.String()}
	for _, h := range rows {
		out.Rows = append(out.Rows, infoOut(&h))
		if h.queue == nil {
			continue
		}
		sum, err := s.summarize(*h.queue, false, s.now())
		if err != nil {
			return nil, err
		}
		out.Queues = append(out.Queues, sum)
	}
	return &body[wire.Message]{out}, nil
}

// maxHeaderText bounds what headers=true gives.
const maxHeaderText = 1 << 20

func (s *Server) getBody(_ context.Context, in *struct {
	IDPath
	Headers bool `query:"headers" doc:"only the headers, with the empty line after them"`
}) (*huma.StreamResponse, error) {
	rows, err := s.hits(in.ID)
	if err != nil {
		return nil, err
	}
	text, err := s.deps.Node.Spool().Body(rows[0].Body)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer text.Close()
		_, w := humago.Unwrap(hctx)
		hctx.SetHeader("Content-Type", "message/rfc822")
		hctx.SetHeader("X-Content-Type-Options", "nosniff")
		out := s.newLines(w)
		var err error
		if in.Headers {
			err = copyHeaders(out.buf, text)
		} else {
			_, err = io.Copy(out.buf, text)
		}
		if err != nil {
			s.log.Error("a message could not be shown whole", "id", rows[0].ID.String(), "error", err)
			panic(http.ErrAbortHandler)
		}
		out.flush()
	}}, nil
}

// copyHeaders copies up to and including the first empty line.
func copyHeaders(w io.Writer, r io.Reader) error {
	in := bufio.NewReader(io.LimitReader(r, maxHeaderText))
	start := true
	for {
		part, err := in.ReadSlice('\n')
		if _, werr := w.Write(part); werr != nil {
			return werr
		}
		if err == io.EOF || start && strings.TrimRight(string(part), "\r\n") == "" {
			return nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		start = err == nil
	}
}
