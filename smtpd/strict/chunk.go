package strict

import (
	"bytes"
	"strconv"

	"bsmtpd/mail"
)

// firstChunk begins a message with BDAT (RFC 3030). go-smtp gets it as a DATA:
//
//	client            Conn              go-smtp       backend
//	BDAT 3      ─►    DATA        ─►
//	                              ◄─    354           (not passed on)
//	abc         ─►    abc                       ─►    Body
//	            ◄─    250 3 octets
//	BDAT 2 LAST ─►
//	xy          ─►    xy, the end               ─►    Body
//	                  "."         ─►            ◄─    queued
//	            ◄─                ◄─    250
//
// Thus it has one command and one reply for one message, on one goroutine. Were
// it given BDAT, it would pass the chunks to a goroutine of its own; RSET does
// not wait for that goroutine, which then sends its result to whichever message
// waits for one (conn.go of go-smtp 0.25.1: handleBdat reads c.dataResult when
// the backend has returned, and the next message has replaced it by then).
func (c *Conn) firstChunk(arg []byte) error {
	c.begin(true)
	if f := c.chunk(arg); f != nil {
		return f
	}
	if f := c.before("BDAT", arg); f != nil {
		c.mode, c.held = swallow, f
		return nil
	}
	c.order("DATA", nil)
	c.verb = "BDAT"
	return nil
}

// chunk reads "size [LAST]". Where the size cannot be read, the octets of the
// chunk cannot be told from commands; where it is absurd, they cannot be passed
// over. Both end the session.
func (c *Conn) chunk(arg []byte) *Fault {
	m := &c.msg
	word, rest, _ := bytes.Cut(arg, []byte{' '})
	last := len(rest) == 4 && bytes.EqualFold(rest, []byte("LAST"))
	// RFC 3030 2: chunk-size ::= 1*DIGIT, so a size beyond all integers is large
	// rather than wrong.
	n, err := strconv.ParseUint(string(word), 10, 62)
	if !isNumber(word) || len(rest) > 0 && !last {
		return fault(Syntax, 501, status554, "expected BDAT size [LAST]").hangUp()
	}
	if err != nil || int64(n) > c.maxSwallow()-m.got {
		return tooLarge(c.maxMessage()).hangUp()
	}
	m.chunk, m.left, m.last, m.between = int64(n), int64(n), last, false
	return nil
}

// isNumber reports 1*DIGIT. strconv does not: it stops where a number becomes too
// large, and does not see the letters behind.
func isNumber(b []byte) bool {
	for _, ch := range b {
		if ch < '0' || ch > '9' {
			return false
		}
	}
	return len(b) > 0
}

// chunkDone follows the last octet of a chunk.
func (c *Conn) chunkDone() error {
	m := &c.msg
	switch {
	case m.last:
		c.lastChunkDone()
	case m.between:
		return c.nextChunk()
	default:
		m.between = true
		c.out = appendReply(c.out, mail.Reply{Code: 250, Status: status200, Text: strconv.FormatInt(m.chunk, 10) + " octets received"})
	}
	return nil
}

// lastChunkDone ends the message.
func (c *Conn) lastChunkDone() {
	m := &c.msg
	m.check.finish()
	if f := m.check.fault; f != nil {
		c.failMessage(f, f)
		return
	}
	m.done = true
}

// nextChunk reads the command between two chunks. go-smtp is in the middle of a
// DATA, waiting for the backend, and does not see it.
func (c *Conn) nextChunk() error {
	line, n, err := c.readLine(c.bodyDeadline()) // or tiny chunks could come for hours
	if err != nil {
		return c.survive(err)
	}
	word, arg, _ := bytes.Cut(line, []byte{' '})
	verb := verbOf(word)
	switch verb {
	case "RSET", "EHLO", "HELO", "QUIT":
		// First go-smtp's DATA ends, in an error whose reply nobody hears. Then
		// the command is read again.
		c.failMessage(ErrReset, nil)
		return nil
	}
	c.use(n)
	if !c.bringsMail(verb) {
		return nil
	}
	switch verb {
	case "BDAT":
		if f := c.chunk(bytes.Trim(arg, " ")); f != nil {
			return f
		}
	case "NOOP":
		c.out = appendReply(c.out, mail.Reply{Code: 250, Status: status200, Text: "ok"})
	case "MAIL", "RCPT", "DATA", "STARTTLS", "AUTH":
		c.answer(badSequence("the message has begun with BDAT"))
	default:
		c.answer(unknown())
	}
	return nil
}
