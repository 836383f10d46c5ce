package strict

import (
	"errors"
	"fmt"
	"strings"

	"bsmtpd/mail"
)

// Cause is why something was refused. The values may be a metric's label.
type Cause string

const (
	Engine     Cause = "engine"  // go-smtp or its backend: see the code
	Watched    Cause = "watched" // the Watcher: see there
	Syntax     Cause = "syntax"
	Sequence   Cause = "sequence"
	LineEnding Cause = "line_ending"
	NUL        Cause = "nul"
	LongLine   Cause = "long_line"
	Size       Cause = "size"
	Errors     Cause = "errors"
	Timeout    Cause = "timeout"
	Stopping   Cause = "stopping"
	Handshake  Cause = "tls"
	Early      Cause = "early"
)

// Fault is a negative reply. Where Conn gives it to the reader of a message, the
// message will not become one, and the client hears from Conn, not from the
// backend.
type Fault struct {
	mail.Reply
	Cause  Cause
	HangUp bool // the session ends with it
}

var _ error = (*Fault)(nil)

func (f *Fault) Error() string { return f.String() }

// ErrReset is what the reader of a message returns when the client gives it up
// between two BDATs.
var ErrReset = errors.New("the client gave the message up")

// ErrGone is what it returns when the client has left.
var ErrGone = errors.New("the client has closed the connection")

func fault(cause Cause, code int, status mail.Status, text string) *Fault {
	return &Fault{Reply: mail.Reply{Code: code, Status: status, Text: text}, Cause: cause}
}

func (f *Fault) hangUp() *Fault {
	f.HangUp = true
	return f
}

var (
	status200 = mail.Status{2, 0, 0}
	status551 = mail.Status{5, 5, 1}
	status552 = mail.Status{5, 5, 2}
	status554 = mail.Status{5, 5, 4}
	status421 = mail.Status{4, 7, 0}
)

func unknown() *Fault { return fault(Syntax, 500, status552, "this command is not known") }

func badSequence(text string) *Fault { return fault(Sequence, 503, status551, text) }

func tooLarge(most int64) *Fault {
	return fault(Size, 552, mail.Status{5, 3, 4}, fmt.Sprintf("the message is larger than the %d octets this server takes", most))
}

// refuse queues a negative reply and tells of it.
func (c *Conn) refuse(f *Fault) {
	if c.mode == over {
		return
	}
	c.out = appendReply(c.out, f.Reply)
	c.watch.Refused(f)
}

// answer refuses what was wrong with one command, and counts it.
func (c *Conn) answer(f *Fault) {
	if f.HangUp {
		c.hangUp(f)
		return
	}
	c.refuse(f)
	c.countError(f.Cause, f.Code)
}

// countError ends the session at the MaxErrors-th wrong command.
func (c *Conn) countError(cause Cause, code int) {
	switch code {
	case 500, 501, 502, 503, 504, 555:
	default:
		if cause != LineEnding {
			return
		}
	}
	c.errs++
	if c.cfg.MaxErrors > 0 && c.errs >= c.cfg.MaxErrors && c.mode != over {
		c.hangUp(fault(Errors, 421, status421, "too many errors: closing the connection"))
	}
}

const maxReplyText = 480 // of the 512 octets of a reply line (RFC 5321 section 4.5.3.1.5)

// appendReply writes a reply as the wire carries it. Lines of the text are
// separated by "\n"; whatever is not printable ASCII becomes a question mark,
// for the text may quote the client.
func appendReply(b []byte, r mail.Reply) []byte {
	text := r.Text
	for {
		line, rest, more := strings.Cut(text, "\n")
		b = append(b, byte('0'+r.Code/100), byte('0'+r.Code/10%10), byte('0'+r.Code%10))
		if more {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if r.Status != (mail.Status{}) {
			b = append(b, r.Status.String()...)
			b = append(b, ' ')
		}
		for i := range min(len(line), maxReplyText) {
			if ch := line[i]; ch >= 0x20 && ch < 0x7f {
				b = append(b, ch)
			} else {
				b = append(b, '?')
			}
		}
		b = append(b, '\r', '\n')
		if !more {
			return b
		}
		text = rest
	}
}
