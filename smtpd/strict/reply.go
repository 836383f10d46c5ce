package strict

import (
	"bytes"
	"io"
	"net"
	"strconv"

	"bsmtpd/mail"
)

// Write takes go-smtp's replies. It owes exactly one for each command and for
// each message, and each is given the place where the client expects it.
func (c *Conn) Write(p []byte) (n int, err error) {
	if !c.enter() {
		return 0, net.ErrClosed
	}
	defer c.leave()
	defer c.guard(&err, io.EOF)
	if c.mode == over {
		c.fail = nil // go-smtp is back from the message; what it says of it is late
		return len(p), nil
	}
	c.written = append(c.written, p...)
	start, at := 0, 0
	for {
		i := bytes.IndexByte(c.written[at:], '\n')
		if i < 0 {
			break
		}
		line := c.written[at : at+i+1]
		at += len(line)
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		c.reply(c.written[start:at])
		start = at
	}
	c.written = append(c.written[:0], c.written[start:]...)
	if len(c.out) >= flushAt {
		if err := c.flush(); err != nil {
			c.broken(err)
			return 0, err
		}
	}
	return len(p), nil
}

// reply takes one whole reply.
func (c *Conn) reply(b []byte) {
	code := replyCode(b)
	if len(c.hand) > 0 {
		panic("strict: go-smtp has answered before it has read all: it has changed")
	}
	switch c.mode {
	case over:
	case greeting:
		c.mode = command
		c.pass(code, b)
	case asked:
		c.replyToCommand(code, b)
	case ended:
		c.mode = command
		c.endMessage()
		if code == 250 {
			c.errs, c.junk = 0, 0
		}
		c.owed = true
		c.pass(code, b)
	case failed:
		c.endMessage()
		c.mode = command
		if c.held != nil {
			c.mode = swallow
		}
	case refused:
		if code < 400 {
			panic("strict: the backend has taken a message that it has not read")
		}
		c.endMessage()
		c.holdBack(b)
	case taking:
		if code != 421 { // that is go-smtp's word for a panic in the backend
			panic("strict: go-smtp has answered a message before its end: it has changed")
		}
		c.pass(code, b)
	default:
		panic("strict: go-smtp has answered what nobody asked: it has changed")
	}
}

func (c *Conn) endMessage() {
	c.msg.open, c.fail = false, nil
	c.shrink()
}

// holdBack keeps a reply until the rest of the message has come.
func (c *Conn) holdBack(b []byte) {
	c.mode, c.held, c.late = swallow, nil, append(c.late[:0], b...)
}

func (c *Conn) replyToCommand(code int, b []byte) {
	c.mode = command
	switch {
	case code == 354 && c.verb == "BDAT": // see firstChunk
		c.mode, c.msg.open = taking, true
		return
	case code == 354 && c.verb == "DATA":
		c.begin(false)
		c.mode, c.msg.open = taking, true
	case code == 334 && c.verb == "AUTH":
		c.mode = answering
	case c.verb == "BDAT":
		// The octets of a refused chunk come all the same.
		c.holdBack(b)
		return
	case code == 250 && (c.verb == "EHLO" || c.verb == "HELO"):
		c.greeted = true
		c.hello(b)
		return
	case code/100 == 2:
		if text, ok := c.cfg.Texts[c.verb]; ok {
			c.out = append(append(c.out, text...), '\r', '\n')
			return
		}
	}
	c.pass(code, b)
}

// pass sends a reply of go-smtp's, or the words that Config has for it.
func (c *Conn) pass(code int, b []byte) {
	if code < 400 {
		c.out = append(c.out, b...)
		return
	}
	b = c.inOurWords(b)
	start := len(c.out)
	c.out = append(c.out, b...)
	printable(c.out[start:])
	f := &Fault{Reply: parseReply(b), Cause: Engine}
	f.HangUp = f.Code == 421 // RFC 5321 section 3.8: the connection is closed after it
	c.watch.Refused(f)
	if f.HangUp {
		c.mode, c.fail, c.linger = over, nil, true
		return
	}
	c.countError(Engine, f.Code)
}

// printable makes whole reply lines ASCII: their text may quote the client.
func printable(b []byte) {
	for line := range bytes.Lines(b) {
		for i, ch := range bytes.TrimSuffix(line, []byte("\r\n")) {
			if ch < ' ' || ch >= 0x7f {
				line[i] = '?'
			}
		}
	}
}

// inOurWords is a negative reply with what Config.Texts makes of it.
func (c *Conn) inOurWords(b []byte) []byte {
	if text, ok := c.cfg.Texts[string(bytes.TrimRight(b, "\r\n"))]; ok {
		return append([]byte(text), '\r', '\n')
	}
	return b
}

// hello mends the reply to EHLO and HELO: it begins with the name of the server
// (RFC 5321 section 4.1.1.1), where go-smtp has the word "Hello", and offers the
// STARTTLS and the SIZE that are Conn's business.
func (c *Conn) hello(b []byte) {
	c.out = append(c.out, "250"...)
	mark := len(c.out) // where the last line's "-" or " " stands
	c.out = append(append(c.out, ' '), c.cfg.Hostname...)
	c.out = append(c.out, '\r', '\n')
	if c.verb == "HELO" {
		return
	}
	add := func(line string) {
		c.out[mark] = '-'
		c.out = append(c.out, "250"...)
		mark = len(c.out)
		c.out = append(append(c.out, ' '), line...)
		c.out = append(c.out, '\r', '\n')
	}
	add("SIZE " + strconv.FormatInt(c.maxMessage(), 10))
	if c.cfg.TLS != nil && c.secured == nil {
		add("STARTTLS")
	}
	for line := range bytes.Lines(b[min(len(b), bytes.IndexByte(b, '\n')+1):]) {
		if word := bytes.TrimRight(line[min(4, len(line)):], "\r\n"); !bytes.HasPrefix(word, []byte("SIZE")) {
			add(string(word))
		}
	}
}

func replyCode(b []byte) int {
	n := 0
	for _, ch := range b[:min(3, len(b))] {
		n = 10*n + int(ch-'0')
	}
	return n
}

// parseReply reads a reply of one line; of several, the last.
func parseReply(b []byte) mail.Reply {
	b = bytes.TrimRight(b, "\r\n")
	b = b[bytes.LastIndexByte(b, '\n')+1:]
	r := mail.Reply{Code: replyCode(b)}
	if len(b) > 4 {
		r.Status, r.Text = mail.ParseStatus(string(b[4:]))
	}
	return r
}
