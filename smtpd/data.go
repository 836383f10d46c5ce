package smtpd

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

const enlargeAt = 32 << 10 // octets of a message after which the read buffer grows

// begin opens the body and puts the Received field in front of it.
func (s *session) begin(dots bool) *refusal {
	t := &s.tx
	t.began = time.Now()
	tr := trace{helo: s.helo, client: s.client, host: s.set.Hostname, esmtp: s.esmtp, utf8: t.env.UTF8, tls: s.tls, received: t.began}
	if len(t.to) == 1 {
		tr.rcpt = t.to[0].Address
	}
	var space [512]byte
	t.check = checker{dots: dots, maxLine: s.set.MaxLine, maxHeader: int(s.set.MaxHeader), maxHops: s.set.MaxHops}
	return t.body.open(&s.srv.bodies, s.set, tr.appendTo(space[:0]))
}

// bodyDeadline bounds one read of a message: the client may not be silent for
// long, and must bring the whole at a least rate. A client that sends an octet
// now and then meets the second.
func (s *session) bodyDeadline() time.Time {
	now := time.Now()
	by := s.deadline(now)
	rate := s.tx.began.Add(s.set.DataGrace + time.Duration(s.tx.got)*time.Second/time.Duration(s.set.MinRate))
	if rate.Before(by) {
		return rate
	}
	return by
}

// fill reads more of a message.
func (s *session) fill() error {
	if s.tx.got > enlargeAt {
		s.wire.enlarge()
	}
	s.wire.patient = true
	err := s.wire.fill(s.bodyDeadline())
	s.wire.patient = false
	if err != nil {
		s.srv.log.Info("a message broke off; nothing of it was stored", "client", s.name, "from", string(s.tx.env.From),
			"octets", s.tx.got, "err", err)
	}
	return err
}

// tooMuch reports a client that goes on sending what has been refused.
func (s *session) tooMuch() bool {
	return s.tx.check.bad != nil && s.tx.got > 2*int64(s.set.MaxMessage)
}

// data answers DATA (RFC 5321 section 4.1.1.4).
func (s *session) data(arg string) error {
	switch {
	case s.tx.chunked:
		return badSequence("the message has begun with BDAT")
	case !s.tx.open:
		return badSequence("MAIL comes first")
	case arg != "":
		return syntax(501, 4, "DATA takes no argument")
	case len(s.tx.to) == 0:
		return refuse(reasonSequence, 554, mail.Status{5, 5, 1}, "no valid recipients")
	}
	defer s.tx.reset()
	if r := s.begin(true); r != nil {
		return s.refuseMessage(r)
	}
	s.wire.reply(354, mail.Status{}, "end with CRLF.CRLF")
	for {
		n, end := s.tx.check.take(s.wire.pending(), &s.tx.body)
		s.wire.use(n)
		s.tx.got += int64(n)
		if end {
			break
		}
		if s.tooMuch() {
			s.tx.check.bad.hangUp = true
			return s.refuseMessage(s.tx.check.bad)
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
	s.wire.shrink()
	return s.finish()
}

// bdat answers BDAT (RFC 3030 section 2). Where the size cannot be read, the
// octets of the chunk cannot be told from commands: the session ends.
func (s *session) bdat(arg string) error {
	word, last, _ := strings.Cut(arg, " ")
	size, err := strconv.ParseUint(word, 10, 62)
	if err != nil || last != "" && !strings.EqualFold(last, "LAST") {
		r := syntax(501, 4, "expected BDAT size [LAST]")
		r.hangUp = true
		return r
	}
	left := int64(size)
	var r *refusal
	switch {
	case !s.tx.open:
		r = badSequence("MAIL comes first")
	case len(s.tx.to) == 0:
		r = refuse(reasonSequence, 554, mail.Status{5, 5, 1}, "no valid recipients")
	case !s.tx.chunked:
		s.tx.chunked = true
		if r = s.begin(false); r != nil {
			s.tx.check.bad = r
		}
	}
	if s.tx.began.IsZero() {
		s.tx.began = time.Now()
	}
	if r != nil {
		return s.refuseChunk(left, r)
	}
	if s.tx.got+left > int64(s.set.MaxMessage) {
		return s.refuseChunk(left, refuse(reasonSize, 552, mail.Status{5, 3, 4}, "the message is larger than this server takes"))
	}
	if err := s.chunk(left); err != nil {
		s.tx.reset()
		return err
	}
	s.wire.shrink()
	if last == "" && s.tx.check.bad == nil {
		return s.ok(250, status200, word+" octets received")
	}
	defer s.tx.reset()
	return s.finish()
}

// chunk takes the octets of one chunk.
func (s *session) chunk(left int64) error {
	for {
		p := s.wire.pending()
		if int64(len(p)) > left {
			p = p[:left]
		}
		n, _ := s.tx.check.take(p, &s.tx.body)
		s.wire.use(n)
		s.tx.got += int64(n)
		left -= int64(n)
		if left == 0 {
			return nil
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// refuseChunk throws a chunk away and ends the transaction, so that the chunks
// that may follow are refused too. A chunk that is too large to be thrown away
// ends the session.
func (s *session) refuseChunk(left int64, r *refusal) error {
	defer s.tx.reset()
	s.tx.body.close()
	s.tx.check = checker{bad: r, maxLine: maxLineLimit}
	if left > 2*int64(s.set.MaxMessage) {
		r.hangUp = true
	} else if err := s.chunk(left); err != nil {
		return err
	}
	s.wire.shrink()
	return s.refuseMessage(r)
}

func (s *session) refuseMessage(r *refusal) error {
	if !r.hangUp && r.reason != reasonSequence {
		s.srv.mailLog.Refused(s.name, "data", s.tx.env.From, "", r.Reply)
	}
	return r
}

// finish stores the message and answers the end of data.
func (s *session) finish() error {
	ended := time.Now()
	id, r := s.store()
	s.srv.m.accept.Observe(time.Since(ended).Seconds())
	if r != nil {
		return s.refuseMessage(r)
	}
	s.messages++
	s.errs, s.refused, s.junk = 0, 0, 0
	return s.ok(250, status200, "queued as "+id.String())
}

// store hands the message to the spool. The time it may take is the server's and
// not the client's: a client that has left changes nothing about the outcome,
// which is in the log.
func (s *session) store() (mail.ID, *refusal) {
	t := &s.tx
	if r := t.check.finish(); r != nil {
		return 0, r
	}
	reader, r := t.body.reader()
	if r != nil {
		return 0, r
	}
	m := spool.Enqueue{Envelope: t.env, Targets: t.targets(), Size: t.body.size}
	ctx, cancel := context.WithTimeout(context.Background(), s.set.EnqueueTimeout)
	defer cancel()
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
