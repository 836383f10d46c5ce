package smtpd

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"bsmtpd/mail"
)

// trace is what a Received field tells.
type trace struct {
	helo     string
	client   netip.Addr
	host     string // this server
	esmtp    bool
	utf8     bool
	tls      *tls.ConnectionState
	rcpt     mail.Address // the only recipient; empty: several, whom it must not tell of each other
	received time.Time
}

// appendTo writes the time stamp line of RFC 5321 section 4.4, in three lines.
// It has no ID, for the ID is not known before the message is committed.
func (t *trace) appendTo(b []byte) []byte {
	b = append(b, "Received: from "...)
	b = append(b, t.helo...)
	if t.client.IsValid() {
		b = append(b, " (["...)
		if t.client.Is6() {
			b = append(b, "IPv6:"...)
		}
		b = t.client.WithZone("").AppendTo(b)
		b = append(b, "])"...)
	}
	b = append(b, "\r\n\tby "...)
	b = append(b, t.host...)
	b = append(b, " with "...)
	b = append(b, t.with()...)
	if t.tls != nil {
		b = append(b, " (version="...)
		b = append(b, strings.ReplaceAll(tls.VersionName(t.tls.Version), " ", "")...)
		b = append(b, " cipher="...)
		b = append(b, tls.CipherSuiteName(t.tls.CipherSuite)...)
		b = append(b, ')')
	}
	if t.rcpt != "" && len(t.rcpt) < maxForBytes {
		b = append(b, "\r\n\tfor <"...)
		b = append(b, t.rcpt...)
		b = append(b, '>')
	}
	b = append(b, ";\r\n\t"...)
	b = t.received.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700")
	return append(b, "\r\n"...)
}

const maxForBytes = 900 // keeps the line below 998 octets

// with is the protocol type of RFC 3848, and of RFC 6531 section 4.3.
func (t *trace) with() string {
	switch {
	case t.utf8 && t.tls != nil:
		return "UTF8SMTPS"
	case t.utf8:
		return "UTF8SMTP"
	case t.tls != nil:
		return "ESMTPS"
	case t.esmtp:
		return "ESMTP"
	}
	return "SMTP"
}

const maxHeloBytes = 255

// validHelo reports whether a client's name for itself can stand in a Received
// field: a host name in a wide sense, or an address literal. RFC 5321 section
// 4.1.4 forbids refusing mail because the name is not true, so nothing else is
// looked at.
func validHelo(s string) bool {
	if s == "" || len(s) > maxHeloBytes {
		return false
	}
	for _, c := range []byte(s) {
		ok := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
			strings.IndexByte("-._:[]+/", c) >= 0
		if !ok {
			return false
		}
	}
	return true
}
