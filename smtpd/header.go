package smtpd

import (
	"bytes"
	"fmt"

	"bsmtpd/mail"
)

// header follows the header of a message, which comes in pieces of any size and
// whose lines end in CRLF, and says when it is too large or in a loop.
type header struct {
	maxBytes int
	maxHops  int // Received fields

	past      bool // the header has ended
	bytes     int  // of it so far, line ends not counted
	hops      int
	begun     bool // the current line has octets
	name      [len(receivedField)]byte
	nameBytes int  // octets of the current line in name
	named     bool // the current line is a field or the continuation of one
	blank     bool // the name of the current line has ended, its colon may follow
}

const receivedField = "received:"

// scan takes octets of the message.
func (h *header) scan(p []byte) *refusal {
	for !h.past && len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if n := len(line) - 1; n >= 0 && line[n] == '\r' {
			line = line[:n]
		}
		if r := h.text(line); r != nil {
			return r
		}
		if ended {
			if r := h.endLine(); r != nil {
				return r
			}
		}
		p = rest
	}
	return nil
}

// text takes octets of a line. It keeps the line's field name, and ends the
// header at a line that is neither "name:" nor the continuation of one. RFC 5322
// wants an empty line there; some mail has none.
func (h *header) text(text []byte) *refusal {
	if len(text) == 0 {
		return nil
	}
	// What is past the bound is not looked at: else the verdict would depend on
	// how much of the line came at once.
	room := h.maxBytes - h.bytes
	if !h.named {
		h.fieldName(text[:min(len(text), room)])
	}
	if h.past {
		return nil
	}
	if len(text) > room {
		return refuse(reasonHeader, 552, mail.Status{5, 3, 4}, fmt.Sprintf("the header is larger than %d octets", h.maxBytes))
	}
	h.bytes += len(text)
	h.begun = true
	h.nameBytes += copy(h.name[h.nameBytes:], text)
	return nil
}

// fieldName looks for the colon that ends a field's name. Blanks may stand
// before the colon (RFC 5322 section 4.5), not within the name.
func (h *header) fieldName(text []byte) {
	if len(text) == 0 {
		return
	}
	if !h.begun {
		h.blank = false
		if text[0] == ' ' || text[0] == '\t' {
			h.named = true // a continuation
			return
		}
		if text[0] == ':' {
			h.past = true
			return
		}
	}
	name, _, colon := bytes.Cut(text, []byte{':'})
	word := bytes.TrimRight(name, " \t")
	if h.blank && len(word) > 0 || bytes.ContainsAny(word, " \t") {
		h.past = true
		return
	}
	h.blank = h.blank || len(word) < len(name)
	h.named = colon
}

func (h *header) endLine() *refusal {
	if !h.begun || !h.named {
		h.past = true
		return nil
	}
	if h.nameBytes == len(h.name) && bytes.EqualFold(h.name[:], []byte(receivedField)) {
		h.hops++
		if h.hops > h.maxHops {
			return refuse(reasonLoop, 554, mail.Status{5, 4, 6},
				fmt.Sprintf("the message has passed more than %d servers: it is in a loop", h.maxHops))
		}
	}
	h.begun, h.nameBytes, h.named = false, 0, false
	return nil
}
