package smtpd

import (
	"fmt"
	"strings"

	"github.com/emersion/go-smtp"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Limits of RFC 3461 sections 4.4 and 4.2.
const (
	maxEnvID = 100
	maxORCPT = 500
)

// Mail implements smtp.Session (RFC 5321 section 4.1.1.2). The address is read
// again from the command: go-smtp has taken the quotes off its local part.
func (s *session) Mail(_ string, opts *smtp.MailOptions) (err error) {
	defer s.caught(&err)
	s.told = nil
	if r := s.mail(opts); r != nil {
		return s.say(r)
	}
	return nil
}

func (s *session) mail(opts *smtp.MailOptions) *refusal {
	switch {
	case s.tx.open:
		return badSequence("a message has begun already; RSET forgets it")
	case s.messages >= s.set.MaxMessages:
		return hangUp(reasonSession, 421, mail.Status{4, 7, 0}, "enough messages on this connection; connect again for more")
	case len(opts.EnvelopeID) > maxEnvID:
		return syntax(501, 4, "ENVID is longer than 100 characters (RFC 3461)")
	}
	path, err := cutPath(s.argument())
	if err != nil {
		return syntax(501, 2, err.Error())
	}
	env := mail.Envelope{EnvID: opts.EnvelopeID, UTF8: opts.UTF8, EightBit: opts.Body == smtp.Body8BitMIME}
	switch opts.Return {
	case smtp.DSNReturnFull:
		env.Return = mail.ReturnFull
	case smtp.DSNReturnHeaders:
		env.Return = mail.ReturnHeaders
	}
	if path != "" {
		if env.From, err = parseAddress(path, opts.UTF8); err != nil {
			return refusalOf(err)
		}
	}
	if r := s.admit(&env, opts.Size); r != nil {
		s.srv.mailLog.Refused(s.name, "mail", env.From, "", r.Reply)
		return r
	}
	s.tx.open, s.tx.env = true, env
	return nil
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

// Rcpt implements smtp.Session (RFC 5321 section 4.1.1.3).
func (s *session) Rcpt(_ string, opts *smtp.RcptOptions) (err error) {
	defer s.caught(&err)
	s.told = nil
	if r := s.rcpt(opts); r != nil {
		return s.say(r)
	}
	s.tx.named++
	return nil
}

func (s *session) rcpt(opts *smtp.RcptOptions) *refusal {
	path, err := cutPath(s.argument())
	if err != nil {
		return syntax(501, 2, err.Error())
	}
	to := mail.Recipient{Notify: notifyOf(opts.Notify)}
	var r *refusal
	if to.Original, r = originalOf(opts, s.conn.OriginalType()); r != nil {
		return r
	}
	if to.Address, err = s.recipient(path); err != nil {
		return s.refuseRecipient(mail.Address(path), refusalOf(err))
	}
	at := s.tx.find(to.Address)
	if at < 0 && len(s.tx.to) >= s.set.MaxRecipients || s.tx.named >= 2*s.set.MaxRecipients {
		// RFC 5321 section 4.5.3.1.10: 452, and the message goes to the others.
		return refuse(reasonRecipients, 452, mail.Status{4, 5, 3}, "too many recipients; send again for the others")
	}
	if at >= 0 {
		s.tx.to[at].Notify = unionNotify(s.tx.to[at].Notify, to.Notify)
		return nil
	}
	queue, err := s.rules.rcpt(s, to.Address)
	if err != nil {
		return s.refuseRecipient(to.Address, s.noPostmaster(to.Address, refusalOf(err)))
	}
	s.tx.to = append(s.tx.to, to)
	s.tx.queues = append(s.tx.queues, queue)
	return nil
}

func notifyOf(list []smtp.DSNNotify) (n mail.Notify) {
	for _, word := range list {
		switch word {
		case smtp.DSNNotifyNever:
			n |= mail.NotifyNever
		case smtp.DSNNotifySuccess:
			n |= mail.NotifySuccess
		case smtp.DSNNotifyFailure:
			n |= mail.NotifyFailure
		case smtp.DSNNotifyDelayed:
			n |= mail.NotifyDelay
		}
	}
	return n
}

// originalOf is ORCPT as "type;address", decoded; kind is its type where go-smtp
// does not know it. It is written into notifications, so it must be one line.
func originalOf(opts *smtp.RcptOptions, kind string) (string, *refusal) {
	if opts.OriginalRecipient == "" {
		return "", nil
	}
	control := func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }
	if len(kind)+len(opts.OriginalRecipient) > maxORCPT || strings.ContainsFunc(opts.OriginalRecipient, control) {
		return "", syntax(501, 4, "ORCPT is not \"type;address\" in xtext (RFC 3461)")
	}
	if kind == "" {
		kind = strings.ToLower(string(opts.OriginalRecipientType))
	}
	return kind + ";" + opts.OriginalRecipient, nil
}

// recipient reads the address of RCPT. That of the postmaster is the configured
// one; the session's wire has given <postmaster> this server's domain, without
// which RFC 5321 section 4.5.1 wants it taken too.
func (s *session) recipient(path string) (mail.Address, error) {
	a, err := parseAddress(path, s.tx.env.UTF8)
	if err == nil && s.set.postmaster != "" && s.isPostmaster(a) {
		return s.set.postmaster, nil
	}
	return a, err
}

func (s *session) isPostmaster(a mail.Address) bool {
	return strings.EqualFold(string(a), "postmaster@"+s.set.Hostname)
}

// noPostmaster says what is missing where the postmaster's mail is refused.
func (s *session) noPostmaster(a mail.Address, r *refusal) *refusal {
	if r.reason == reasonRelay && s.isPostmaster(a) {
		return refuse(reasonMailbox, 550, mail.Status{5, 1, 1}, "<postmaster>: no address is configured for it")
	}
	return r
}

func (s *session) refuseRecipient(to mail.Address, r *refusal) *refusal {
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
