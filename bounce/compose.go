// Package bounce tells senders what became of their mail: it turns the owed
// bounces of the spool into delivery status notifications (RFC 3464) and queues
// those.
package bounce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

const (
	crlf = "\r\n"

	// maxHeaderBytes of the original's headers are returned, whole lines.
	maxHeaderBytes = 64 << 10
	// maxLineBytes of a line without its CRLF (RFC 5322 section 2.1.1).
	maxLineBytes = 998
	// maxBoundaryBytes leaves room for what makes a boundary unique (RFC 2046
	// section 5.1.1 allows 70).
	maxBoundaryBytes = 60
)

// Options are what a notification depends on besides the owed row.
type Options struct {
	Hostname  string    // of this server, the Reporting-MTA
	From      string    // header value; empty: Mail Delivery System <MAILER-DAEMON@Hostname>
	Locale    Locale    // of the text; English where it is not known
	Now       mail.Time // the Date
	Boundary  string    // letters and digits drawn by chance; changed where a part contains it
	MaxReturn int64     // bytes of a message that is returned in full at most
}

// Notice is a composed notification with what its envelope must say.
type Notice struct {
	Body     []byte
	UTF8     bool // the headers need SMTPUTF8
	EightBit bool // a part needs 8BITMIME
}

// Compose writes the notification for an owed row. original is the body that is
// kept for it; nil where it cannot be read, then nothing is returned with the
// notification. Whatever strangers wrote (addresses, words, ENVID, the
// original) the result is a well-formed multipart/report. An error means that
// the row cannot be reported to anybody, ever, or is an *OriginalError or an
// *OptionsError.
func Compose(o spool.Owed, original io.Reader, opt Options) (Notice, error) {
	if !opt.Locale.Valid() {
		opt.Locale = English
	}
	if err := check(&o, &opt); err != nil {
		return Notice{}, err
	}
	back, err := giveBack(&o, original, opt.MaxReturn)
	if err != nil {
		return Notice{}, err
	}
	l := newLetter(opt.Locale, &o, opt.Hostname)
	text, err := l.write(&o, back.name)
	if err != nil {
		return Notice{}, err
	}
	parts := []part{textPart(text, opt.Locale), statusPart(&o, opt.Hostname)}
	if back.name != "" {
		parts = append(parts, back.part)
	}
	subject, err := l.sentence("subject-" + actionName(worst(&o)))
	if err != nil {
		return Notice{}, err
	}
	return assemble(&o, opt, subject, parts), nil
}

func check(o *spool.Owed, opt *Options) error {
	if o.From.IsNull() {
		// RFC 5321 section 6.1: a notification must never be answered with another.
		return errors.New("the null sender is never told anything")
	}
	if _, err := mail.ParseAddress(string(o.From)); err != nil {
		return fmt.Errorf("the sender is no address: %w", err)
	}
	if len(o.To) == 0 {
		return errors.New("there is no recipient to report")
	}
	if err := checkOptions(opt); err != nil {
		return &OptionsError{err}
	}
	return nil
}

// OptionsError says that Options are wrong, which is no fault of the owed row: it
// must wait until they are put right.
type OptionsError struct{ Err error }

func (e *OptionsError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *OptionsError) Unwrap() error { return e.Err }

func checkOptions(opt *Options) error {
	if _, err := mail.ParseDomain(opt.Hostname); err != nil {
		return fmt.Errorf("host name of this server (setting node.hostname): %w", err)
	}
	if opt.From == "" {
		opt.From = (&netmail.Address{Name: "Mail Delivery System", Address: "MAILER-DAEMON@" + opt.Hostname}).String()
	} else if _, err := netmail.ParseAddress(opt.From); err != nil || strings.ContainsAny(opt.From, "\r\n") || len(opt.From) > maxLineBytes/2 {
		return fmt.Errorf("from address %q of notifications is not usable", opt.From)
	}
	if opt.Boundary == "" || len(opt.Boundary) > maxBoundaryBytes {
		return fmt.Errorf("boundary %q: use 1 to %d letters and digits", opt.Boundary, maxBoundaryBytes)
	}
	for _, c := range opt.Boundary {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return fmt.Errorf("boundary %q: use letters and digits", opt.Boundary)
		}
	}
	return nil
}

// part is one body part, encoded.
type part struct {
	header  string // Content- lines with their CRLF
	content []byte // ends with CRLF
}

// textPart is what people read.
func textPart(text string, l Locale) part {
	h := "Content-Type: text/plain; charset=utf-8" + crlf + "Content-Language: " + string(l) + crlf
	content, encoding := encodeText([]byte(text))
	return part{h + "Content-Transfer-Encoding: " + encoding + crlf, content}
}

// encodeText gives the bytes as they are where they are short lines of ASCII,
// else as quoted-printable.
func encodeText(b []byte) (content []byte, encoding string) {
	if isClean(b) && isASCII(b) {
		return b, "7bit"
	}
	return quoted(b), "quoted-printable"
}

func quoted(b []byte) []byte {
	var out bytes.Buffer
	w := quotedprintable.NewWriter(&out)
	w.Write(b) // a bytes.Buffer never fails
	w.Close()
	if !bytes.HasSuffix(out.Bytes(), []byte(crlf)) {
		out.WriteString(crlf)
	}
	return out.Bytes()
}

// isClean reports that b is whole lines ended by CRLF, none of them too long,
// without NUL: fit to travel as 7bit or 8bit (RFC 2045 section 2.7, 2.8).
func isClean(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if !bytes.HasSuffix(b, []byte(crlf)) || bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	for line := range bytes.SplitSeq(b[:len(b)-2], []byte(crlf)) {
		if len(line) > maxLineBytes || bytes.ContainsAny(line, "\r\n") {
			return false
		}
	}
	return true
}

func isASCII[T string | []byte](b T) bool {
	for i := range len(b) {
		if b[i] >= 0x80 {
			return false
		}
	}
	return true
}

func assemble(o *spool.Owed, opt Options, subject string, parts []part) Notice {
	boundary := opt.Boundary
	for used(parts, boundary) {
		boundary += "x"
	}
	var b bytes.Buffer
	field := func(name, value string) { b.WriteString(name + ": " + value + crlf) }
	field("From", opt.From)
	field("To", toHeader(o.From))
	field("Subject", mime.QEncoding.Encode("utf-8", subject))
	field("Date", rfc5322(opt.Now))
	field("Message-ID", fmt.Sprintf("<%s.%s@%s>", o.Key.ID, opt.Boundary, opt.Hostname))
	field("Auto-Submitted", "auto-replied") // RFC 3834 section 5: stops auto-responders
	field("MIME-Version", "1.0")
	field("Content-Type", "multipart/report; report-type=delivery-status;"+crlf+"\tboundary="+boundary)
	n := Notice{UTF8: o.From.NeedsUTF8()}
	var body bytes.Buffer
	for _, p := range parts {
		body.WriteString(crlf + "--" + boundary + crlf + p.header + crlf)
		body.Write(p.content)
	}
	body.WriteString(crlf + "--" + boundary + "--" + crlf)
	n.EightBit = !isASCII(body.Bytes())
	if n.EightBit {
		// RFC 2045 section 6.2: a multipart is 8bit when a part of it is.
		field("Content-Transfer-Encoding", "8bit")
	}
	b.Write(body.Bytes())
	n.Body = b.Bytes()
	return n
}

func used(parts []part, boundary string) bool {
	for _, p := range parts {
		if bytes.Contains(p.content, []byte("--"+boundary)) {
			return true
		}
	}
	return false
}

func rfc5322(t mail.Time) string { return t.Std().UTC().Format(time.RFC1123Z) }

// toHeader writes an address that ParseAddress takes as a header value.
func toHeader(a mail.Address) string { return "<" + string(a) + ">" }
