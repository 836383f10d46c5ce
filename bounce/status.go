package bounce

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

const (
	foldWidth     = 76                      // where the lines of words are broken
	maxWordBytes  = 900                     // a longer word is broken too: with the field's name a line stays below 998
	maxFieldBytes = 2 * spool.MaxWordsBytes // the rest is cut off
)

// reported are the actions, the worst first.
var reported = []spool.NotifyAction{spool.NotifyFailed, spool.NotifyDelayed, spool.NotifyRelayed}

// actionOf takes an action that this build does not know for a failure.
func actionOf(r spool.OwedRecipient) spool.NotifyAction {
	if r.Action == spool.NotifyDelayed || r.Action == spool.NotifyRelayed {
		return r.Action
	}
	return spool.NotifyFailed
}

// actionName is the value of RFC 3464 section 2.3.3.
func actionName(a spool.NotifyAction) string {
	switch a {
	case spool.NotifyDelayed:
		return "delayed"
	case spool.NotifyRelayed:
		return "relayed"
	}
	return "failed"
}

// worst is the action that the subject tells.
func worst(o *spool.Owed) spool.NotifyAction {
	for _, a := range reported {
		for _, r := range o.To {
			if actionOf(r) == a {
				return a
			}
		}
	}
	return spool.NotifyFailed
}

// statusPart is the part that programs read (RFC 3464 section 2). With
// international addresses it is the one of RFC 6533 section 4, which may carry
// them as they are.
func statusPart(o *spool.Owed, hostname string) part {
	global := false
	for _, r := range o.To {
		global = global || r.Address.NeedsUTF8()
	}
	s := status{global: global}
	s.field("Reporting-MTA", "dns; "+hostname)
	if o.EnvID != "" {
		s.field("Original-Envelope-Id", xtext(o.EnvID))
	}
	if o.Arrived != 0 {
		s.field("Arrival-Date", rfc5322(o.Arrived))
	}
	s.field("X-Bsmtpd-Queue-ID", o.Key.ID.String())
	for _, r := range o.To {
		s.b.WriteString(crlf)
		s.recipient(r)
	}
	kind, encoding := "message/delivery-status", "7bit"
	if global {
		kind = "message/global-delivery-status"
		if !isASCII(s.b.Bytes()) {
			encoding = "8bit"
		}
	}
	return part{"Content-Type: " + kind + crlf + "Content-Transfer-Encoding: " + encoding + crlf, s.b.Bytes()}
}

// status collects the fields of a delivery-status part.
type status struct {
	b      bytes.Buffer
	global bool // UTF-8 is allowed
}

// field writes one field on one line, if that is possible at all: an address or
// identifier that is broken compares equal to nothing.
func (s *status) field(name, value string) { s.write(name, value, maxWordBytes) }

// words writes a field of free text, folded.
func (s *status) words(name, value string) { s.write(name, value, foldWidth) }

// write makes the value harmless, so that no caller can forget it.
func (s *status) write(name, value string, width int) {
	value = printable(value, s.global)
	if len(value) > maxFieldBytes {
		value = strings.ToValidUTF8(value[:maxFieldBytes], "")
	}
	if value == "" {
		return
	}
	lines := []string{value}
	if len(value) > width {
		lines = wrap(value, width, maxWordBytes)
	}
	s.b.WriteString(name + ": " + strings.Join(lines, crlf+"\t") + crlf)
}

func (s *status) recipient(r spool.OwedRecipient) {
	if kind, addr, ok := strings.Cut(r.Original, ";"); ok && kind != "" && addr != "" {
		if !s.global {
			addr = xtext(addr)
		}
		s.field("Original-Recipient", atom(kind)+";"+addr)
	}
	kind := "rfc822"
	if r.Address.NeedsUTF8() {
		kind = "utf-8" // RFC 6533 section 3
	}
	s.field("Final-Recipient", kind+";"+string(r.Address))
	s.field("Action", actionName(actionOf(r)))
	s.field("Status", statusOf(r).String())
	if r.Remote != "" {
		s.field("Remote-MTA", "dns; "+r.Remote)
	}
	switch {
	case r.Reply.Code != 0:
		s.words("Diagnostic-Code", "smtp; "+r.Reply.String())
	case r.Reply.Text != "":
		// Not words of SMTP: a name or route could not be reached.
		s.words("Diagnostic-Code", "x-bsmtpd; "+r.Reply.Text)
	}
	if r.Last != 0 {
		s.field("Last-Attempt-Date", rfc5322(r.Last))
	}
}

// statusOf is the Status field: the other side's code where it fits the action,
// else one that says the cause (RFC 3464 section 2.3.4).
func statusOf(r spool.OwedRecipient) mail.Status {
	said := r.Reply.Status
	switch actionOf(r) {
	case spool.NotifyRelayed:
		return mail.Status{2, 1, 9} // relayed to non-compliant mailer (RFC 3886)
	case spool.NotifyDelayed:
		if said[0] == 4 {
			return said
		}
		return mail.Status{4, 4, 7}
	}
	switch {
	case said[0] == 5, said[0] == 4 && r.Cause == spool.FailExpired:
		return said
	}
	switch r.Cause {
	case spool.FailQuota:
		return mail.Status{5, 2, 2}
	case spool.FailExpired:
		return mail.Status{4, 4, 7}
	case spool.FailOperator:
		return mail.Status{5, 3, 0}
	case spool.FailAccount:
		return mail.Status{5, 2, 1}
	}
	return mail.Status{5, 0, 0}
}

// printable makes a text of strangers harmless: one line, no control or format
// characters (which could break a header or turn a reader's line around), valid
// UTF-8, and ASCII unless utf8ok.
func printable(s string, utf8ok bool) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r) || r >= 0x80 && !utf8ok:
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(clean)
}

// xtext encodes what would not survive in a field (RFC 3461 section 4), and
// leaves everything else readable.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// atom keeps of an address type what may stand in one.
func atom(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return -1
	}, s)
}
