package smtpd

import (
	"fmt"
	"strconv"
	"strings"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// afterColon gives what stands after "FROM:" or "TO:".
func afterColon(arg, word string) (string, bool) {
	if len(arg) < len(word) || !strings.EqualFold(arg[:len(word)], word) {
		return "", false
	}
	return arg[len(word):], true
}

// mail answers MAIL (RFC 5321 section 4.1.1.2).
func (s *session) mail(arg string) error {
	switch {
	case s.helo == "":
		return badSequence("say EHLO first")
	case s.tx.open:
		return badSequence("a message has begun already; RSET forgets it")
	case s.messages >= s.set.MaxMessages:
		return hangUp(reasonSession, 421, mail.Status{4, 7, 0}, "enough messages on this connection; connect again for more")
	}
	rest, ok := afterColon(arg, "FROM:")
	if !ok {
		return syntax(501, 4, "expected MAIL FROM:<address>")
	}
	path, params, err := cutPath(rest)
	if err != nil {
		return syntax(501, 2, err.Error())
	}
	p, err := parseMailParams(params)
	if err != nil {
		return err
	}
	env := mail.Envelope{Return: p.ret, EnvID: p.envID, UTF8: p.utf8, EightBit: p.eightBit}
	if path != "" {
		if env.From, err = parseAddress(path, p.utf8); err != nil {
			return err
		}
	}
	if r := s.admit(&env, p.size); r != nil {
		s.srv.mailLog.Refused(s.name, "mail", env.From, "", r.Reply)
		return r
	}
	s.tx.open, s.tx.env = true, env
	return s.ok(250, mail.Status{2, 1, 0}, "sender ok")
}

// admit says whether a message may come at all.
func (s *session) admit(env *mail.Envelope, size int64) *refusal {
	if size > int64(s.set.MaxMessage) {
		return refuse(reasonSize, 552, mail.Status{5, 3, 4},
			fmt.Sprintf("the message is larger than the %d octets this server takes", int64(s.set.MaxMessage)))
	}
	if err := s.srv.deps.Admit(); err != nil {
		return refusalAtMail(err)
	}
	if err := s.rules.mail(s, env); err != nil {
		return refusalOf(err)
	}
	return nil
}

// rcpt answers RCPT (RFC 5321 section 4.1.1.3).
func (s *session) rcpt(arg string) error {
	switch {
	case !s.tx.open:
		return badSequence("MAIL comes first")
	case s.tx.chunked:
		return badSequence("the message has begun already")
	}
	rest, ok := afterColon(arg, "TO:")
	if !ok {
		return syntax(501, 4, "expected RCPT TO:<address>")
	}
	path, params, err := cutPath(rest)
	if err == nil && path == "" {
		err = errPath
	}
	if err != nil {
		return syntax(501, 2, err.Error())
	}
	var to mail.Recipient
	if err := parseRcptParams(params, &to); err != nil {
		return err
	}
	if to.Address, err = s.recipient(path); err != nil {
		return s.refuseRecipient(mail.Address(path), refusalOf(err))
	}
	if i := s.tx.find(to.Address); i >= 0 {
		s.tx.to[i].Notify = unionNotify(s.tx.to[i].Notify, to.Notify)
		return s.ok(250, mail.Status{2, 1, 5}, "recipient ok")
	}
	if len(s.tx.to) >= s.set.MaxRecipients {
		// RFC 5321 section 4.5.3.1.10: 452, and the message goes to the others.
		return refuse(reasonRecipients, 452, mail.Status{4, 5, 3}, "too many recipients; send again for the others")
	}
	queue, err := s.rules.rcpt(s, to.Address)
	if err != nil {
		return s.refuseRecipient(to.Address, refusalOf(err))
	}
	s.tx.to = append(s.tx.to, to)
	s.tx.queues = append(s.tx.queues, queue)
	return s.ok(250, mail.Status{2, 1, 5}, "recipient ok")
}

// recipient reads the address of RCPT. <Postmaster> needs no domain, in any case
// of letters (RFC 5321 section 4.5.1).
func (s *session) recipient(path string) (mail.Address, error) {
	if !strings.EqualFold(path, "postmaster") {
		a, err := parseAddress(path, s.tx.env.UTF8)
		if err != nil || !strings.EqualFold(string(a), "postmaster@"+s.set.Hostname) || s.set.postmaster == "" {
			return a, err
		}
	}
	if s.set.postmaster == "" {
		return "", refuse(reasonMailbox, 550, mail.Status{5, 1, 1}, "<postmaster>: no address is configured for it")
	}
	return s.set.postmaster, nil
}

func (s *session) refuseRecipient(to mail.Address, r *refusal) error {
	s.srv.mailLog.Refused(s.name, "rcpt", s.tx.env.From, to, r.Reply)
	if r.hangUp || r.reason == reasonSyntax {
		return r
	}
	s.refused++
	if s.refused > s.set.MaxRefused {
		return hangUp(reasonErrors, 421, mail.Status{4, 7, 0}, "too many refused recipients: closing the connection")
	}
	return r
}

// find is the index of a recipient, or -1.
func (t *transaction) find(a mail.Address) int {
	for i := range t.to {
		if t.to[i].Address == a {
			return i
		}
	}
	return -1
}

// unionNotify is what is asked for an address that was given twice: whoever
// wants to hear of something does.
func unionNotify(a, b mail.Notify) mail.Notify {
	ask := func(n mail.Notify) mail.Notify {
		if n == 0 {
			return mail.NotifyFailure | mail.NotifyDelay
		}
		return n
	}
	if a == b {
		return a
	}
	u := ask(a) | ask(b)
	if u != mail.NotifyNever {
		u &^= mail.NotifyNever
	}
	return u
}

// targets groups the recipients by queue, queues in the order in which they were
// first named. The slices are the caller's to keep.
func (t *transaction) targets() []spool.Target {
	to := append(make([]mail.Recipient, 0, len(t.to)), t.to...)
	one := true
	for _, q := range t.queues {
		one = one && q == t.queues[0]
	}
	if one {
		return []spool.Target{{Queue: t.queues[0], To: to}}
	}
	var out []spool.Target
	at := map[spool.QueueName]int{}
	for i, q := range t.queues {
		n, ok := at[q]
		if !ok {
			n = len(out)
			at[q] = n
			out = append(out, spool.Target{Queue: q})
		}
		out[n].To = append(out[n].To, to[i])
	}
	return out
}
