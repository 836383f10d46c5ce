package strict

import (
	"bytes"
	"fmt"

	"bsmtpd/mail"
)

// content looks through the octets of one message, in pieces of any size. It
// never looks at single octets: a line costs three calls of bytes.IndexByte.
//
// The end of data is CRLF "." CRLF and nothing else (RFC 5321 section 4.1.1.4).
// After the first fault content only looks for the end, so that the client, who
// is still sending, is answered at the right place.
type content struct {
	dots    bool  // DATA: there are stuffed dots and an end of data
	maxLine int   // octets, CRLF not counted
	maxSize int64 // octets, stuffed dots and the end of data not counted

	fault *Fault // the first
	size  int64  // octets so far, counted as for maxSize
	lines int    // that have ended
	col   int    // octets of the current line
	bol   bool   // the last octets were CRLF, or there were none
	cr    bool   // the last octet was a CR
	lone  bool   // the current line is a dot, or a dot and a CR: perhaps the end
}

// scan looks at b and returns how much of it belongs to the message: all, or up
// to the end of data, which is part of n.
func (k *content) scan(b []byte) (n int, end bool) {
	for n < len(b) {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			k.text(b[n:])
			return len(b), false
		}
		k.text(b[n : n+i])
		n += i + 1
		if k.newline() {
			return n, true
		}
	}
	return n, false
}

// text takes octets of a line, among them no LF.
func (k *content) text(t []byte) {
	if len(t) == 0 {
		return
	}
	if k.bol {
		k.bol = false
		if k.dots && t[0] == '.' {
			k.lone = true
			if t = t[1:]; len(t) == 0 {
				return
			}
		}
	}
	if k.cr {
		k.cr, k.lone = false, false
		k.bareCR()
	}
	k.size += int64(len(t))
	if last := len(t) - 1; t[last] == '\r' {
		k.cr = true
		t = t[:last]
	}
	if len(t) == 0 {
		return
	}
	k.lone = false
	if k.fault != nil {
		return
	}
	k.col += len(t)
	switch {
	case bytes.IndexByte(t, '\r') >= 0:
		k.bareCR()
	case bytes.IndexByte(t, 0) >= 0:
		k.bad(NUL, mail.Status{5, 6, 0}, "a NUL octet")
	case k.col > k.maxLine:
		k.bad(LongLine, mail.Status{5, 6, 0}, fmt.Sprintf("more than %d octets; wrap it or use a transfer encoding", k.maxLine))
	case k.size > k.maxSize:
		k.fault = tooLarge(k.maxSize)
	}
}

// newline takes an LF and reports whether it ended the data.
func (k *content) newline() bool {
	crlf := k.cr
	k.cr = false
	switch {
	case !crlf:
		k.bad(LineEnding, status552, "a bare LF; lines end in CRLF")
	case k.lone:
		k.size-- // the CR of the end of data
		return true
	}
	k.size++
	k.lines++
	k.col, k.lone, k.bol = 0, false, crlf
	if k.size > k.maxSize && k.fault == nil {
		k.fault = tooLarge(k.maxSize)
	}
	return false
}

// finish takes the end of a message whose length is known.
func (k *content) finish() {
	if k.cr {
		k.bareCR()
	}
}

func (k *content) bareCR() { k.bad(LineEnding, status552, "a bare CR; lines end in CRLF") }

func (k *content) bad(cause Cause, status mail.Status, what string) {
	if k.fault == nil {
		k.fault = fault(cause, 550, status, fmt.Sprintf("line %d of the message has %s", k.lines+1, what))
	}
}
