package bounce

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// OriginalError says that the original could not be read, which is no fault of
// the owed row: compose again without it.
type OriginalError struct{ Err error }

func (e *OriginalError) Error() string { return "read the message to return: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OriginalError) Unwrap() error { return e.Err }

// returned is the part that gives the original back.
type returned struct {
	part part
	name string // "full", "headers", or empty: nothing is given back
}

// giveBack makes the third part by RET (RFC 3461 section 6.2): the whole
// message only where a failure is reported, the sender asked for it, and it is
// not too large. For a full account it is always the headers: the sender would
// get back many large messages that nobody wants twice.
func giveBack(o *spool.Owed, original io.Reader, maxReturn int64) (returned, error) {
	if original == nil {
		return returned{}, nil
	}
	full := o.Return == mail.ReturnFull && o.Size <= maxReturn && worst(o) == spool.NotifyFailed
	for _, r := range o.To {
		full = full && r.Cause != spool.FailQuota
	}
	if !full {
		head, err := readHeaders(original)
		return headersPart(head, o.UTF8), err
	}
	all, err := io.ReadAll(io.LimitReader(original, maxReturn+1))
	if err != nil {
		return returned{}, &OriginalError{err}
	}
	// A message with broken lines would need an encoding, and message/rfc822
	// allows none (RFC 2046 section 5.2.1).
	if int64(len(all)) > maxReturn || !isClean(all) {
		head, err := readHeaders(bytes.NewReader(all))
		return headersPart(head, o.UTF8), err
	}
	kind, encoding := "message/rfc822", "7bit"
	if !isASCII(all) {
		encoding = "8bit"
		if head, err := readHeaders(bytes.NewReader(all)); err == nil && international(head, o.UTF8) {
			kind = "message/global" // RFC 6532 section 3.7
		}
	}
	return returned{part{contentLines(kind, encoding), all}, "full"}, nil
}

func contentLines(kind, encoding string) string {
	return "Content-Type: " + kind + crlf + "Content-Transfer-Encoding: " + encoding + crlf
}

func international(head []byte, utf8Mail bool) bool {
	return utf8Mail && !isASCII(head) && utf8.Valid(head)
}

func headersPart(head []byte, utf8Mail bool) returned {
	if len(head) == 0 {
		return returned{}
	}
	if international(head, utf8Mail) && isClean(head) {
		return returned{part{contentLines("message/global-headers", "8bit"), head}, "headers"} // RFC 6533 section 5
	}
	content, encoding := encodeText(head)
	return returned{part{contentLines("text/rfc822-headers", encoding), content}, "headers"}
}

// readHeaders reads up to the empty line, which it leaves out, and not more
// than maxHeaderBytes.
func readHeaders(r io.Reader) ([]byte, error) {
	br := bufio.NewReader(io.LimitReader(r, maxHeaderBytes))
	var head []byte
	for {
		line, err := br.ReadBytes('\n')
		if len(bytes.TrimRight(line, crlf)) == 0 && err == nil {
			return head, nil
		}
		switch {
		case errors.Is(err, io.EOF):
			// Cut off in the middle of a line by the limit, or a message
			// without an end: half a header says nothing.
			if len(head) == 0 && len(line) > 0 {
				head = append(line, crlf...)
			}
			return head, nil
		case err != nil:
			return nil, &OriginalError{err}
		}
		head = append(head, line...)
	}
}
