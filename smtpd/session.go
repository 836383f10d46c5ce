package smtpd

import (
	"bytes"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"bsmtpd/mail"
	"bsmtpd/smtpd/strict"
	"bsmtpd/spool"
)

// rules are what one kind of listener allows; edge is the only kind so far.
// Their errors become replies by refusalOf.
type rules interface {
	// mail may refuse a message for its envelope so far.
	mail(s *session, env *mail.Envelope) error
	// rcpt says in which queue a recipient's mail waits, or refuses it.
	rcpt(s *session, to mail.Address) (spool.QueueName, error)
}

// session is what is known about one client. go-smtp calls it for each command
// that it has understood, its wire for what it has not passed on. All of it
// belongs to the goroutine that go-smtp has for the connection.
type session struct {
	srv    *Server
	set    *settings
	rules  rules
	conn   *strict.Conn
	client netip.Addr // invalid: the network does not say
	name   string     // of the client in logs

	helo  string // what the client calls itself
	esmtp bool

	tx transaction

	messages int      // accepted
	refused  int      // refused recipients since the last accepted message
	told     *refusal // what go-smtp will say for the session; nil: what it says is its own
	panicked bool
	storing  atomic.Bool // the queue has a message of it
	ending   sync.Once
}

var (
	_ smtp.Session   = (*session)(nil)
	_ strict.Watcher = (*session)(nil)
)

// transaction is the message that is being handed over. Its zero value: there is
// none.
type transaction struct {
	open   bool
	env    mail.Envelope
	to     []mail.Recipient
	queues []spool.QueueName // of each recipient
	named  int               // accepted RCPTs, the same address each time included
	body   body
	header header
}

func (t *transaction) reset() {
	t.body.close()
	*t = transaction{to: t.to[:0], queues: t.queues[:0], body: t.body}
}

// Reset forgets the message: after RSET, EHLO, and the end of data.
func (s *session) Reset() {
	defer s.caught(nil)
	s.tx.reset()
}

// Logout is called at the end of the connection.
func (s *session) Logout() error {
	defer s.caught(nil)
	s.tx.reset()
	return nil
}

// end gives back what a connection holds. It may be called several times.
func (s *session) end() {
	s.ending.Do(func() {
		s.srv.unregister(s)
		s.srv.gate.leaveFrom(s.client)
		s.srv.gate.leave()
		result := connServed
		if s.panicked {
			result = connPanic
		}
		s.srv.m.connections.WithLabelValues(result).Inc()
		s.srv.running.Done()
	})
}

// caught makes a panic the end of this session only.
func (s *session) caught(err *error) {
	p := recover()
	if p == nil {
		return
	}
	s.Panicked(p, debug.Stack())
	if err != nil {
		*err = s.say(hangUp(reasonInternal, 421, mail.Status{4, 3, 0}, "a fault in this server; try again later"))
	}
}

// Panicked implements strict.Watcher.
func (s *session) Panicked(p any, stack []byte) {
	s.panicked = true
	s.srv.m.panics.Inc()
	s.srv.log.Error("a bug ended an SMTP session; please report it", "client", s.name, "panic", p, "stack", string(stack))
}

// say gives a refusal to go-smtp.
func (s *session) say(r *refusal) error {
	s.told = r
	text := r.Text[:min(len(r.Text), maxReplyText)]
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode{int(r.Status[0]), int(r.Status[1]), int(r.Status[2])}, Message: text}
}

// Refused implements strict.Watcher: all negative replies come by.
func (s *session) Refused(f *strict.Fault) {
	reason := string(f.Cause)
	switch {
	case f.Cause != strict.Engine && f.Cause != strict.Watched:
	case s.told != nil:
		reason = s.told.reason
	case f.Code == 503:
		reason = reasonSequence
	default:
		reason = reasonSyntax
	}
	s.told = nil
	s.srv.m.refusal(reason, f.Code)
	if f.HangUp {
		s.srv.mailLog.Refused(s.name, "connection", "", "", f.Reply)
	}
}

// Handshake implements strict.Watcher.
func (s *session) Handshake(err error) {
	if err != nil {
		s.srv.m.tls.WithLabelValues("failed").Inc()
		s.srv.log.Info("a TLS handshake failed", "client", s.name, "err", err)
		return
	}
	s.srv.m.tls.WithLabelValues("done").Inc()
}

// Command implements strict.Watcher: it answers what go-smtp does not know, or
// takes too easily.
func (s *session) Command(verb string, arg []byte) (strict.Answer, bool) {
	s.told = nil
	switch verb {
	case "EHLO", "HELO":
		name, _, _ := bytes.Cut(arg, []byte{' '})
		if !validHelo(string(name)) {
			return s.answer(syntax(501, 2, "expected a host name or an address in brackets"))
		}
		s.helo, s.esmtp = string(name), verb == "EHLO"
	case "DATA", "BDAT": // of which go-smtp only says that there are no recipients
		if !s.tx.open {
			return s.answer(badSequence("MAIL comes first"))
		}
	case "HELP":
		return strict.Answer{Reply: mail.Reply{Code: 214, Status: mail.Status{2, 0, 0},
			Text: "commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS HELP QUIT (RFC 5321)"}}, true
	case "EXPN", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "AUTH":
		return s.answer(syntax(502, 1, verb+" is not offered here"))
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT":
		// A browser that was tricked into speaking to a mail server.
		return s.answer(hangUp(reasonSyntax, 554, mail.Status{5, 5, 1}, "this is a mail server"))
	}
	return strict.Answer{}, false
}

func (s *session) answer(r *refusal) (strict.Answer, bool) {
	s.told = r
	return strict.Answer{Reply: r.Reply, HangUp: r.hangUp}, true
}

// argument is what stands behind "FROM:" or "TO:" of the command that go-smtp is
// asking about.
func (s *session) argument() string {
	_, arg := s.conn.Command()
	_, rest, _ := strings.Cut(string(arg), ":")
	return rest
}

// trace is what the Received field of the message will tell.
func (s *session) trace() *trace {
	tr := &trace{helo: s.helo, client: s.client, host: s.set.Hostname, esmtp: s.esmtp, utf8: s.tx.env.UTF8, received: time.Now()}
	if state, ok := s.conn.TLS(); ok {
		tr.tls = &state
	}
	if len(s.tx.to) == 1 {
		tr.rcpt = s.tx.to[0].Address
	}
	return tr
}
