package smtpd

import (
	"bytes"
	"fmt"

	"bsmtpd/mail"
)

// checker reads the octets of one message in pieces of any size and says what
// is wrong with it: line endings, NUL, long lines, a large header, a loop. With
// dots set it also undoes the dot-stuffing of DATA and finds the end of data.
//
// It never looks at single octets: each line costs a few calls of
// bytes.IndexByte. After the first fault it only looks for the end, so that the
// client, who is still sending, is answered at the right place.
//
// The end of data is CRLF "." CRLF and nothing else (RFC 5321 section 4.1.1.4),
// and a message with a bare CR or LF is refused whole. Both are needed against
// SMTP smuggling: a server that ends at LF "." CRLF is the victim of it, one
// that passes such octets on is its carrier.
type checker struct {
	dots      bool
	maxLine   int // octets in a line, CRLF not counted
	maxHeader int // octets
	maxHops   int // Received fields

	bad  *refusal // the first fault
	line int      // number of the current line, from 0
	col  int      // octets of it that were seen
	cr   bool     // the last octet was a CR in the current line
	text bool     // the current line has begun, or the one before it did not end in CRLF

	past      bool // past the header
	hops      int
	header    int // octets of the header so far
	name      [len(receivedField)]byte
	nameBytes int  // octets of the current line in name
	named     bool // the current line is a field or the continuation of one
	blank     bool // the name of the current line has ended, its colon may follow
}

const receivedField = "received:"

var endOfData = []byte(".\r\n")

// sink takes the message as it is checked. A refusal ends the taking.
type sink interface{ add(p []byte) *refusal }

// take reads b. It returns how much it has used, which is less than all only
// before the end of data or where the next octets decide what a dot means, and
// whether the end of data was reached.
func (c *checker) take(b []byte, w sink) (n int, end bool) {
	run := 0 // b[run:n] is text that w has not got
	for n < len(b) {
		if c.dots && !c.text && b[n] == '.' {
			rest := b[n:]
			c.pass(w, b[run:n])
			switch {
			case bytes.HasPrefix(rest, endOfData):
				return n + len(endOfData), true
			case bytes.HasPrefix(endOfData, rest):
				return n, false
			}
			n++
			run = n
		}
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			c.part(b[n:])
			n = len(b)
			break
		}
		c.rest(b[n : n+i+1])
		n += i + 1
	}
	c.pass(w, b[run:n])
	return n, false
}

func (c *checker) pass(w sink, p []byte) {
	if c.bad == nil && len(p) > 0 {
		c.bad = w.add(p)
	}
}

// finish is called at the end of the message and gives the first fault.
func (c *checker) finish() *refusal {
	if c.cr {
		c.fault(reasonLineEnding, mail.Status{5, 5, 2}, "a bare CR; lines end in CRLF")
	}
	return c.bad
}

// part takes octets within a line.
func (c *checker) part(p []byte) {
	if len(p) == 0 {
		return
	}
	cr := p[len(p)-1] == '\r'
	text := p
	if cr {
		text = p[:len(p)-1]
	}
	if c.cr {
		c.fault(reasonLineEnding, mail.Status{5, 5, 2}, "a bare CR; lines end in CRLF")
	}
	c.look(text)
	c.cr, c.text = cr, true
}

// rest takes the last octets of a line, its LF included.
func (c *checker) rest(p []byte) {
	text, crlf := p[:len(p)-1], false
	switch {
	case len(text) == 0:
		crlf = c.cr
	case c.cr:
		c.fault(reasonLineEnding, mail.Status{5, 5, 2}, "a bare CR; lines end in CRLF")
		fallthrough
	default:
		crlf = text[len(text)-1] == '\r'
		if crlf {
			text = text[:len(text)-1]
		}
	}
	c.look(text)
	if !crlf {
		c.fault(reasonLineEnding, mail.Status{5, 5, 2}, "a bare LF; lines end in CRLF")
	}
	if !c.past {
		c.endHeaderLine()
	}
	c.line++
	c.col, c.cr, c.text = 0, false, !crlf
}

// look checks the text of a line, or a part of it.
func (c *checker) look(text []byte) {
	if c.bad != nil {
		return
	}
	if !c.past {
		c.headerText(text)
	}
	c.col += len(text)
	switch {
	case bytes.IndexByte(text, '\r') >= 0:
		c.fault(reasonLineEnding, mail.Status{5, 5, 2}, "a bare CR; lines end in CRLF")
	case bytes.IndexByte(text, 0) >= 0:
		c.fault(reasonNUL, mail.Status{5, 6, 0}, "a NUL octet")
	case c.col > c.maxLine:
		c.fault(reasonLongLine, mail.Status{5, 6, 0}, fmt.Sprintf("more than %d octets; wrap it or use a transfer encoding", c.maxLine))
	}
}

func (c *checker) fault(reason string, status mail.Status, what string) {
	if c.bad == nil {
		c.bad = refuse(reason, 550, status, fmt.Sprintf("line %d of the message has %s", c.line+1, what))
	}
}

// headerText follows the header: it keeps the field name of the current line, and
// ends the header at a line that is neither "name:" nor the continuation of one.
// RFC 5322 wants an empty line there; some mail has none.
func (c *checker) headerText(text []byte) {
	c.header += len(text)
	if c.header > c.maxHeader {
		c.bad = refuse(reasonHeader, 552, mail.Status{5, 3, 4}, fmt.Sprintf("the header is larger than %d octets", c.maxHeader))
		return
	}
	if !c.named && len(text) > 0 {
		c.fieldName(text)
	}
	c.nameBytes += copy(c.name[c.nameBytes:], text)
}

// fieldName looks for the colon that ends a field's name. Blanks may stand
// before the colon (RFC 5322 section 4.5), not within the name.
func (c *checker) fieldName(text []byte) {
	if c.col == 0 {
		c.blank = false
		if text[0] == ' ' || text[0] == '\t' {
			c.named = true // a continuation
			return
		}
		if text[0] == ':' {
			c.past = true
			return
		}
	}
	name, _, colon := bytes.Cut(text, []byte{':'})
	word := bytes.TrimRight(name, " \t")
	if c.blank && len(word) > 0 || bytes.ContainsAny(word, " \t") {
		c.past = true
		return
	}
	c.blank = c.blank || len(word) < len(name)
	c.named = colon
}

func (c *checker) endHeaderLine() {
	if c.col == 0 || !c.named {
		c.past = true
		return
	}
	if c.nameBytes == len(c.name) && bytes.EqualFold(c.name[:], []byte(receivedField)) {
		c.hops++
		if c.hops > c.maxHops && c.bad == nil {
			c.bad = refuse(reasonLoop, 554, mail.Status{5, 4, 6},
				fmt.Sprintf("the message has passed more than %d servers: it is in a loop", c.maxHops))
		}
	}
	c.nameBytes, c.named = 0, false
}
