package smtpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"bsmtpd/mail"
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

// session is the dialogue with one client. All of it belongs to one goroutine,
// but for what wire says.
type session struct {
	srv    *Server
	set    *settings
	rules  rules
	wire   *wire
	client netip.Addr // invalid: the network does not say
	name   string     // of the client in logs

	began time.Time
	helo  string // what the client calls itself; empty: it has not yet
	esmtp bool
	tls   *tls.ConnectionState

	tx transaction

	messages int // accepted
	errs     int // wrong commands since the last accepted message
	refused  int // refused recipients since then
	junk     int // commands that bring nothing forward since then
}

// transaction is the message that is being handed over. Its zero value: there is
// none.
type transaction struct {
	open   bool
	env    mail.Envelope
	to     []mail.Recipient
	queues []spool.QueueName // of each recipient
	body   body
	check  checker

	chunked bool      // BDAT has begun
	began   time.Time // when the body began
	got     int64     // octets of it that came over the wire
}

func (t *transaction) reset() {
	t.body.close()
	*t = transaction{to: t.to[:0], queues: t.queues[:0], body: t.body}
}

// run speaks with the client until one of the two has enough. Panics end this
// session only.
func (s *session) run() (panicked bool) {
	linger := false
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			s.srv.m.panics.Inc()
			s.srv.log.Error("a bug ended an SMTP session; please report it", "client", s.name, "panic", p, "stack", string(debug.Stack()))
			s.wire.reply(421, mail.Status{4, 3, 0}, "a fault in this server; try again later")
		}
		s.tx.reset()
		s.wire.close(linger)
	}()
	s.wire.reply(220, mail.Status{}, s.set.Hostname+" ESMTP bsmtpd")
	for {
		err := s.next()
		if err == nil {
			continue
		}
		var r *refusal
		if errors.As(err, &r) {
			// Those two wait for a client that is silent: there is nothing unread.
			linger = r != errQuit && r.reason != reasonStopping && r.reason != reasonTimeout
		}
		return false
	}
}

// errQuit ends a session at the client's wish. It is never written to.
var errQuit = &refusal{hangUp: true}

// next reads and answers one command. An error ends the session; what there was
// to say has been said.
func (s *session) next() error {
	line, err := s.wire.line(s.deadline(time.Now()))
	if err == nil {
		err = s.command(line)
	}
	if err == nil {
		return nil
	}
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	if r == errQuit {
		return r
	}
	return s.refuse(r)
}

// deadline is when the session gives up on a client that says nothing.
func (s *session) deadline(now time.Time) time.Time {
	end := s.began.Add(s.set.SessionTimeout)
	if idle := now.Add(s.set.IdleTimeout); idle.Before(end) {
		return idle
	}
	return end
}

// refuse sends a refusal and counts it. The result is nil where the session goes
// on.
func (s *session) refuse(r *refusal) error {
	s.wire.reply(r.Code, r.Status, r.Text)
	s.srv.m.refusal(r)
	if r.hangUp {
		s.srv.mailLog.Refused(s.name, "connection", "", "", r.Reply)
		return r
	}
	if len(s.wire.out) >= flushAt {
		if err := s.wire.flush(); err != nil {
			return err
		}
	}
	switch r.reason {
	case reasonSyntax, reasonSequence, reasonLineEnding:
		s.errs++
		if s.errs >= s.set.MaxErrors {
			return s.refuse(hangUp(reasonErrors, 421, mail.Status{4, 7, 0}, "too many errors: closing the connection"))
		}
	}
	return nil
}

func (s *session) ok(code int, status mail.Status, text string) error {
	s.wire.reply(code, status, text)
	if len(s.wire.out) >= flushAt {
		return s.wire.flush()
	}
	return nil
}

// idle counts a command that brings no mail forward.
func (s *session) idle() error {
	s.junk++
	if s.junk > s.set.MaxJunk {
		return hangUp(reasonErrors, 421, mail.Status{4, 7, 0}, "too many commands without a message: closing the connection")
	}
	return nil
}

var status200 = mail.Status{2, 0, 0}

// command answers one command line.
func (s *session) command(line []byte) error {
	word, rest, _ := bytes.Cut(line, []byte{' '})
	var verb [10]byte
	if len(word) > len(verb) {
		return syntax(500, 2, "this command is not known")
	}
	for i, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		verb[i] = c
	}
	arg := string(bytes.TrimRight(rest, " "))
	switch string(verb[:len(word)]) {
	case "MAIL":
		return s.mail(arg)
	case "RCPT":
		return s.rcpt(arg)
	case "DATA":
		return s.data(arg)
	case "BDAT":
		return s.bdat(arg)
	case "EHLO":
		return s.hello(arg, true)
	case "HELO":
		return s.hello(arg, false)
	case "STARTTLS":
		return s.startTLS(arg)
	case "QUIT":
		s.wire.reply(221, status200, "bye")
		return errQuit
	}
	return s.other(string(verb[:len(word)]), arg)
}

// other answers the commands that have nothing to do with a message.
func (s *session) other(verb, arg string) error {
	if err := s.idle(); err != nil {
		return err
	}
	switch verb {
	case "RSET":
		s.tx.reset()
		return s.ok(250, status200, "forgotten")
	case "NOOP":
		return s.ok(250, status200, "ok")
	case "VRFY":
		// RFC 5321 section 3.5.3: neither confirmed nor denied.
		return s.ok(252, mail.Status{2, 5, 0}, "send mail to find out")
	case "HELP":
		return s.ok(214, status200, "commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS HELP QUIT (RFC 5321)")
	case "EXPN", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "AUTH":
		return syntax(502, 1, verb+" is not offered here")
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT":
		// A browser that was tricked into speaking to a mail server.
		return hangUp(reasonSyntax, 554, mail.Status{5, 5, 1}, "this is a mail server")
	}
	return syntax(500, 2, "this command is not known")
}

// hello answers EHLO and HELO. Both end a transaction (RFC 5321 section 4.1.4).
func (s *session) hello(arg string, esmtp bool) error {
	if err := s.idle(); err != nil {
		return err
	}
	name, _, _ := strings.Cut(arg, " ")
	if !validHelo(name) {
		return syntax(501, 2, "expected a host name or an address in brackets")
	}
	s.tx.reset()
	s.helo, s.esmtp = name, esmtp
	if !esmtp {
		return s.ok(250, mail.Status{}, s.set.Hostname)
	}
	return s.ok(250, mail.Status{}, s.greeting())
}

// greeting lists the extensions (RFC 5321 section 4.1.1.1).
func (s *session) greeting() string {
	var b strings.Builder
	b.WriteString(s.set.Hostname)
	b.WriteString("\nPIPELINING\nSIZE ")
	b.WriteString(itoa(int64(s.set.MaxMessage)))
	if s.srv.tls != nil && s.tls == nil {
		b.WriteString("\nSTARTTLS")
	}
	b.WriteString("\nENHANCEDSTATUSCODES\n8BITMIME\nSMTPUTF8\nCHUNKING\nDSN")
	return b.String()
}

// startTLS secures the connection. Nothing that was said before counts after it
// (RFC 3207 section 4.2).
func (s *session) startTLS(arg string) error {
	switch {
	case s.srv.tls == nil:
		return syntax(502, 1, "STARTTLS is not offered here")
	case arg != "":
		return syntax(501, 4, "STARTTLS takes no argument")
	case s.tls != nil:
		return badSequence("TLS is in use already")
	case len(s.wire.pending()) > 0:
		return hangUp(reasonTLS, 554, mail.Status{5, 5, 1}, "nothing may follow STARTTLS before the handshake")
	}
	s.wire.reply(220, status200, "go ahead")
	state, err := s.wire.startTLS(s.srv.tls.conf, s.deadline(time.Now()))
	if err != nil {
		s.srv.m.tls.WithLabelValues("failed").Inc()
		s.srv.log.Info("a TLS handshake failed", "client", s.name, "err", err)
		return errGone
	}
	s.srv.m.tls.WithLabelValues("done").Inc()
	s.tx.reset()
	s.tls, s.helo, s.esmtp = state, "", false
	return nil
}
