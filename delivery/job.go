package delivery

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// maxPerTransaction is the number of recipients in one transaction: "the minimum
// total number of recipients that MUST be buffered" (RFC 5321 section 4.5.3.1.8).
const maxPerTransaction = 100

// job is one transaction: a message and at most maxPerTransaction of its
// recipients, all on one route.
type job struct {
	msg    spool.Message
	to     []spool.Recipient
	small  []byte // the whole body, when it is small and about to be sent
	ahead  int64  // bytes of small that count against feed.ahead
	redone int    // times it was put back because the server was out of step

	// Guarded by the pipe's mutex from the moment the job is begun.
	mail, data, final mail.Reply
	rcpt              []mail.Reply
	sent              bool // the last piece of the body goes out
}

// reset forgets what was answered, for another try.
func (j *job) reset() {
	j.mail, j.data, j.final, j.sent = mail.Reply{}, mail.Reply{}, mail.Reply{}, false
	j.rcpt = make([]mail.Reply, len(j.to))
}

func (j *job) accepted() int {
	n := 0
	for _, r := range j.rcpt {
		if r.Positive() {
			n++
		}
	}
	return n
}

// needsUTF8 reports whether an address can only travel with SMTPUTF8.
func (j *job) needsUTF8() bool {
	for i := range j.to {
		if j.to[i].Address.NeedsUTF8() {
			return true
		}
	}
	return j.msg.From.NeedsUTF8()
}

// commands are MAIL and the RCPTs, without CRLF.
func (j *job) commands(e *extensions) []string {
	m := &j.msg
	utf8 := e.utf8 && (m.UTF8 || j.needsUTF8())
	var b strings.Builder
	fmt.Fprintf(&b, "MAIL FROM:<%s>", m.From)
	if e.size {
		b.WriteString(" SIZE=" + strconv.FormatInt(m.Size, 10))
	}
	if e.eightBit && m.EightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if utf8 {
		b.WriteString(" SMTPUTF8")
	}
	if e.dsn {
		switch m.Return {
		case mail.ReturnFull:
			b.WriteString(" RET=FULL")
		case mail.ReturnHeaders:
			b.WriteString(" RET=HDRS")
		}
		if m.EnvID != "" {
			b.WriteString(" ENVID=" + xtext(m.EnvID))
		}
	}
	out := append(make([]string, 0, 1+len(j.to)), b.String())
	for i := range j.to {
		line := "RCPT TO:<" + string(j.to[i].Address) + ">"
		if e.dsn {
			line += dsnParameters(&j.to[i], utf8)
		}
		out = append(out, line)
	}
	return out
}

func dsnParameters(r *spool.Recipient, utf8 bool) string {
	s := ""
	if r.Notify != 0 {
		var words []string
		for _, n := range []struct {
			bit  mail.Notify
			word string
		}{{mail.NotifyNever, "NEVER"}, {mail.NotifySuccess, "SUCCESS"}, {mail.NotifyFailure, "FAILURE"}, {mail.NotifyDelay, "DELAY"}} {
			if r.Notify&n.bit != 0 {
				words = append(words, n.word)
			}
		}
		s += " NOTIFY=" + strings.Join(words, ",")
	}
	if kind, addr, ok := strings.Cut(r.Original, ";"); ok {
		if strings.EqualFold(kind, "utf-8") {
			s += " ORCPT=utf-8;" + utf8Xtext(addr, utf8)
		} else {
			s += " ORCPT=" + kind + ";" + xtext(addr)
		}
	}
	return s
}

// xtext is the encoding of RFC 3461 section 4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// utf8Xtext is utf-8-addr-xtext of RFC 6533 section 3, or with direct set, where
// SMTPUTF8 is in use, utf-8-addr-unitext.
func utf8Xtext(s string, direct bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\', direct && r >= utf8.RuneSelf:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\x{%02X}", r)
		}
	}
	return b.String()
}

// spoilt reports an address that would break the command line. Rows never hold
// one; if one does, the server must not see it.
func spoilt(a mail.Address) bool {
	return strings.ContainsFunc(string(a), func(r rune) bool { return r < ' ' || r == 0x7f }) || len(a) > 1000
}

// fates turns the replies of an answered job into results, one per recipient in
// the order of j.to. dsn says whether the server promised notifications.
func (j *job) fates(dsn bool) []spool.RecipientResult {
	out := make([]spool.RecipientResult, len(j.to))
	for i, r := range j.to {
		reply := j.rcpt[i]
		switch {
		case !j.mail.Positive():
			reply = j.mail
		case !reply.Positive():
		case j.final.Code != 0:
			reply = j.final
		default:
			reply = j.data
		}
		out[i] = spool.RecipientResult{Address: r.Address, Fate: fateOf(reply), Reply: reply}
		// RFC 3461 section 5.2.2: handed to a server without DSN, so a sender
		// who asked for success is told "relayed".
		out[i].Relayed = out[i].Fate == spool.Sent && !dsn && r.Notify.OnSuccess()
	}
	return out
}

// fateOf is what a reply means for a recipient. A 503 says that the server and
// we are out of step; that is no reason to give a message up.
func fateOf(r mail.Reply) spool.Fate {
	switch {
	case r.Positive():
		return spool.Sent
	case r.Permanent() && r.Code != 503:
		return spool.Failed
	}
	return spool.Deferred
}

// all gives every recipient of the job the same result.
func (j *job) all(fate spool.Fate, reply mail.Reply) []spool.RecipientResult {
	out := make([]spool.RecipientResult, len(j.to))
	for i, r := range j.to {
		out[i] = spool.RecipientResult{Address: r.Address, Fate: fate, Reply: reply}
	}
	return out
}
