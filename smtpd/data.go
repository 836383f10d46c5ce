package smtpd

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/emersion/go-smtp"

	"bsmtpd/mail"
	"bsmtpd/smtpd/strict"
	"bsmtpd/spool"
)

// Data implements smtp.Session: it takes a message, by DATA or by BDAT, and
// stores it. It reads the content from the session's strict.Conn, which has
// looked through it; where that found a fault, the client hears of it from there.
func (s *session) Data(io.Reader) (err error) {
	defer s.caught(&err)
	s.told = nil
	if err := s.receive(s.conn.Body()); err != nil {
		s.tx.body.close() // the rest of the message may take long to come
		return s.broken(err)
	}
	ended := time.Now()
	id, refused := s.store()
	s.srv.m.accept.Observe(time.Since(ended).Seconds())
	if refused != nil {
		return s.broken(refused)
	}
	s.messages++
	s.refused = 0
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "queued as " + id.String()}
}

// receive reads the message into the body, behind its Received field.
func (s *session) receive(r io.Reader) error {
	t := &s.tx
	t.header = header{maxBytes: int(s.set.MaxHeader), maxHops: s.set.MaxHops}
	var space [512]byte
	if r := t.body.open(&s.srv.bodies, s.set, s.trace().appendTo(space[:0])); r != nil {
		return r
	}
	room := len(emptyLine)
	for {
		p, refused := t.body.space()
		if refused != nil {
			return refused
		}
		n, err := r.Read(p[room:])
		if room > 0 && n > 0 {
			n, room = separate(p, n), 0
		}
		t.body.took(n)
		if r := t.header.scan(p[:n]); r != nil {
			return r
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const emptyLine = "\r\n"

// separate puts an empty line before a message that begins with a blank. It has no
// header, and behind the Received field its first line would become part of that.
// The n octets of the message stand in p behind room for the line; it says how many
// there are now, from the beginning of p on.
func separate(p []byte, n int) int {
	if first := p[len(emptyLine)]; first == ' ' || first == '\t' {
		return copy(p, emptyLine) + n
	}
	return copy(p, p[len(emptyLine):len(emptyLine)+n])
}

// broken logs why there will be no message and says what go-smtp is to answer.
func (s *session) broken(err error) error {
	var r *refusal
	var f *strict.Fault
	switch {
	case errors.As(err, &r):
		s.srv.mailLog.Refused(s.name, "data", s.tx.env.From, "", r.Reply)
		return s.say(r)
	case errors.As(err, &f) && !f.HangUp:
		s.srv.mailLog.Refused(s.name, "data", s.tx.env.From, "", f.Reply)
	case errors.Is(err, strict.ErrReset):
	default:
		s.srv.log.Info("a message broke off; nothing of it was stored", "client", s.name, "from", string(s.tx.env.From), "err", err)
	}
	return err
}

// store hands the message to the spool. The time it may take is the server's and
// not the client's: a client that has left changes nothing about the outcome,
// which is in the log.
func (s *session) store() (mail.ID, *refusal) {
	t := &s.tx
	reader, r := t.body.reader()
	if r != nil {
		return 0, r
	}
	m := spool.Enqueue{Envelope: t.env, Targets: t.targets(), Size: t.body.size}
	ctx, cancel := context.WithTimeout(context.Background(), s.set.EnqueueTimeout)
	defer cancel()
	s.storing.Store(true)
	defer s.storing.Store(false)
	got, err := s.srv.deps.Queue.Enqueue(ctx, m, reader)
	if err != nil {
		r := refusalOf(err)
		if r.reason == reasonInternal || errors.Is(err, context.DeadlineExceeded) {
			s.srv.log.Error("a message could not be stored", "client", s.name, "from", string(t.env.From), "err", err)
		}
		return 0, r
	}
	if got.ID == 0 {
		return 0, refusalOfTargets(&m, got)
	}
	s.srv.m.messages.Inc()
	s.srv.m.bytes.Add(float64(m.Size))
	s.logQueued(&m, got)
	return got.ID, nil
}

func (s *session) logQueued(m *spool.Enqueue, got spool.Enqueued) {
	queues := make([]string, 0, len(m.Targets))
	for i, t := range m.Targets {
		if i < len(got.Targets) && got.Targets[i].Refusal != spool.Accepted {
			continue
		}
		queues = append(queues, string(t.Queue))
	}
	if len(queues) < len(m.Targets) {
		s.srv.m.bounces.Inc()
	}
	env := m.Envelope
	env.To = s.tx.to
	s.srv.mailLog.Queued(got.ID, s.name, &env, m.Size, queues)
}
