package strict

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"
)

const enlargeAt = 32 << 10 // octets of a message after which the read buffer grows

// message is the content of one message on its way through a Conn.
type message struct {
	open  bool // go-smtp has called the backend for it
	check content
	began time.Time
	got   int64 // octets of it that came over the wire, faulty ones included
	ready int   // octets of the wire's buffer that were checked and not given
	drop  int   // octets behind them that nobody gets: the end of data
	whole bool  // DATA: its end was seen
	done  bool  // the backend has got all of it
	bol   bool  // the next octet of ready begins a line

	chunked bool
	last    bool  // the chunk is the last one
	chunk   int64 // octets of the chunk
	left    int64 // of them, those that are still to come
	between bool  // a chunk was acknowledged, and none has followed
}

// begin makes c ready for a message.
func (c *Conn) begin(chunked bool) {
	c.msg = message{
		check: content{dots: !chunked, maxLine: orDefault(c.cfg.MaxLine, 998), maxSize: c.maxMessage(), bol: true},
		began: time.Now(), chunked: chunked, bol: true,
	}
}

func (c *Conn) maxMessage() int64 { return orDefault(c.cfg.MaxMessage, 64<<20) }

// maxSwallow bounds what a client may send of a message that is refused.
func (c *Conn) maxSwallow() int64 { return 2 * c.maxMessage() }

// Body is the message that a backend's Data was called for, as the client meant
// it: without the dots of DATA, the chunks of BDAT joined. It is good during
// Data. Its errors are *Fault, ErrReset, ErrGone or the network's; after any of
// them the client hears what there is to hear from Conn, whatever Data returns.
//
// The reader that go-smtp gives to Data is not to be used: it fails. go-smtp
// would look at the content again, octet by octet, which costs more than all
// else on the way, and would be a second opinion on where it ends.
func (c *Conn) Body() io.Reader { return body{c} }

type body struct{ c *Conn }

func (b body) Read(p []byte) (n int, err error) {
	if !b.c.enter() {
		return 0, net.ErrClosed
	}
	defer b.c.leave()
	defer b.c.guard(&err, errBug) // io.EOF would be the end of a whole message
	return b.c.readBody(p)
}

func (c *Conn) readBody(p []byte) (int, error) {
	m := &c.msg
	for c.mode == taking && !m.done {
		if m.ready > 0 {
			if n := m.give(p, &c.wire); n > 0 || len(p) == 0 {
				return n, nil
			}
			continue
		}
		if m.drop > 0 {
			c.use(m.drop)
			m.drop, m.bol = 0, false // the line goes on behind its dot
		}
		if err := c.takeMore(); err != nil {
			c.broken(err)
		}
	}
	// A client that sends on without waiting (RFC 3030 section 4.2) hears what
	// became of one message before the next, whose storing may take long or fail.
	if m.done && c.owed && c.mode == taking {
		if err := c.flush(); err != nil {
			c.broken(err)
		}
	}
	switch {
	case c.fail != nil:
		return 0, c.fail
	case m.done:
		return 0, io.EOF
	}
	return 0, io.ErrUnexpectedEOF // the message is over, and so is its Body
}

// give copies checked octets, less the dots that RFC 5321 section 4.5.2 has put
// into DATA. Lines end in CRLF, so one that begins with a dot is found behind LF.
func (m *message) give(p []byte, w *wire) (n int) {
	src := w.buf[w.r : w.r+m.ready]
	used := 0
	for n < len(p) && used < len(src) {
		if m.bol && !m.chunked && src[used] == '.' {
			m.bol = false
			used++
			continue
		}
		line := src[used:min(len(src), used+len(p)-n)]
		if !m.chunked {
			if i := bytes.Index(line, []byte("\n.")); i >= 0 {
				line = line[:i+1]
			}
		}
		n += copy(p[n:], line)
		used += len(line)
		m.bol = line[len(line)-1] == '\n'
	}
	w.use(used)
	m.ready -= used
	return n
}

// takeMore reads and checks more of a message of which the backend has got all
// that was ready.
func (c *Conn) takeMore() error {
	m := &c.msg
	switch {
	case m.whole:
		m.done = true
		return nil
	case m.chunked && m.left == 0:
		return c.chunkDone()
	case m.chunked && m.left > c.maxMessage()-m.check.size:
		f := tooLarge(c.maxMessage())
		c.failMessage(f, f)
		return nil
	}
	p := c.pending()
	if len(p) == 0 {
		return c.fillBody()
	}
	n := c.scan(p)
	if f := m.check.fault; f != nil {
		c.use(n)
		c.failMessage(f, f)
		return nil
	}
	// A line that is but a dot, or a dot and a CR, is the end of data or the
	// beginning of it: what else follows ".CR" is a fault, and the dot itself is
	// never part of the text.
	switch {
	case m.whole:
		m.drop = min(n, len(".\r\n"))
	case m.check.lone && m.check.cr:
		m.drop = min(n, len(".\r"))
	case m.check.lone:
		m.drop = 1
	}
	m.ready = n - m.drop
	return nil
}

// scan checks octets of the message and returns how many of p they are.
func (c *Conn) scan(p []byte) (n int) {
	m := &c.msg
	if m.chunked && int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, m.whole = m.check.scan(p)
	m.got += int64(n)
	if m.chunked {
		m.left -= int64(n)
	}
	return n
}

// failMessage makes the reading of the message fail. The client hears held when
// the rest of it has come; nil: it hears nothing.
func (c *Conn) failMessage(err error, held *Fault) {
	c.mode, c.fail, c.held = failed, err, held
}

var errBug = errors.New("strict: a bug ended the connection")

var errUnread = errors.New("strict: the content of a message is read from Conn.Body")

// finishData is called when go-smtp reads the content, which it does when the
// backend has returned: it throws away what the backend has not read.
func (c *Conn) finishData() {
	if c.msg.done {
		c.line = append(c.line[:0], ".\r\n"...)
		c.hand, c.mode = c.line, ended
		return
	}
	c.mode, c.fail = refused, errUnread
}

// fillBody reads more of a message.
func (c *Conn) fillBody() error {
	if c.msg.got > enlargeAt {
		c.enlarge()
	}
	return c.fill(c.bodyDeadline(), true)
}

// bodyDeadline bounds one read of a message: the client may not be silent for
// long, and must bring the whole at a least rate. A client that sends an octet
// now and then meets the second.
func (c *Conn) bodyDeadline() time.Time {
	now := time.Now()
	by := c.deadline(now)
	grace := orDefault(c.cfg.DataGrace, 5*time.Minute)
	rate := time.Duration(orDefault(c.cfg.MinRate, 500))
	if end := c.msg.began.Add(grace + time.Duration(c.msg.got)*time.Second/rate); end.Before(by) {
		return end
	}
	return by
}

// swallowMore throws away what is left of a refused message, and then says why
// it was refused.
func (c *Conn) swallowMore() error {
	m := &c.msg
	c.use(m.ready + m.drop)
	m.ready, m.drop = 0, 0
	if m.whole || m.chunked && m.left == 0 {
		c.sayHeld(false)
		return nil
	}
	if m.got+m.left > c.maxSwallow() {
		c.sayHeld(true)
		return nil
	}
	p := c.pending()
	if len(p) == 0 {
		return c.fillBody()
	}
	c.use(c.scan(p))
	return nil
}

// sayHeld says what was held back until the end of a message: Conn's words or,
// where it had none, go-smtp's.
func (c *Conn) sayHeld(hangUp bool) {
	c.mode = command
	c.shrink()
	f := c.held
	if f == nil {
		c.pass(replyCode(c.late), c.late)
	} else {
		f.HangUp = f.HangUp || hangUp
		c.answer(f)
	}
	if hangUp && c.mode != over {
		c.mode, c.linger = over, true
	}
}
