package strict

import (
	"bytes"
	"time"
)

const enlargeAt = 32 << 10 // octets of a message after which the read buffer grows

// message is the content of one message on its way through a Conn.
type message struct {
	open  bool // go-smtp is reading it
	check content
	began time.Time
	got   int64 // octets of it that came over the wire, faulty ones included
	ready int   // octets of the wire's buffer that were checked and not given to go-smtp
	whole bool  // DATA: its end was seen
	added int   // see Conn.Added

	chunked bool
	last    bool  // the chunk is the last one
	chunk   int64 // octets of the chunk
	left    int64 // of them, those that are still to come
	between bool  // a chunk was acknowledged, and none has followed
	bol     bool  // the next octet that go-smtp gets begins a line
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

// give hands checked octets to go-smtp. It reads DATA, so chunks get the dots of
// RFC 5321 section 4.5.2.
func (m *message) give(p []byte, w *wire) int {
	if m.ready == 0 {
		return 0
	}
	src := w.buf[w.r : w.r+m.ready]
	var n, used int
	if m.chunked {
		n, used = m.stuff(p, src)
	} else {
		n = copy(p, src)
		used = n
	}
	w.use(used)
	m.ready -= used
	return n
}

// stuff copies src to p with a second dot in each line that begins with one. src
// was checked: its lines end in CRLF.
func (m *message) stuff(p, src []byte) (n, used int) {
	for n < len(p) && used < len(src) {
		if m.bol && src[used] == '.' {
			m.bol = false
			p[n] = '.'
			n++
			continue
		}
		line := src[used:min(len(src), used+len(p)-n)]
		if i := bytes.Index(line, []byte("\n.")); i >= 0 {
			line = line[:i+1]
		}
		k := copy(p[n:], line)
		n += k
		used += k
		m.bol = line[k-1] == '\n'
	}
	return n, used
}

// takeMore reads and checks more of a message that go-smtp is reading and has
// got all of that was ready.
func (c *Conn) takeMore() error {
	m := &c.msg
	switch {
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
	if m.chunked && int64(len(p)) > m.left {
		p = p[:m.left]
	}
	m.ready, m.whole = c.scan(p)
	if f := m.check.fault; f != nil {
		c.use(m.ready)
		m.ready = 0
		c.failMessage(f, f)
	}
	return nil
}

func (c *Conn) scan(p []byte) (n int, end bool) {
	m := &c.msg
	n, end = m.check.scan(p)
	m.got += int64(n)
	if m.chunked {
		m.left -= int64(n)
	}
	return n, end
}

// given notes when go-smtp has got all of a DATA.
func (c *Conn) given() {
	if c.msg.whole && c.msg.ready == 0 {
		c.mode = ended
	}
}

// failMessage makes go-smtp's reading fail. The client hears held, when the rest
// of the message has come; nil: it hears nothing.
func (c *Conn) failMessage(err error, held *Fault) {
	c.mode, c.fail, c.held = failed, err, held
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
	if m.whole || m.chunked && m.left == 0 {
		c.mode = command
		c.shrink()
		c.answer(c.held)
		return nil
	}
	if m.got+m.left > c.maxSwallow() {
		return c.held.hangUp()
	}
	p := c.pending()
	if len(p) == 0 {
		return c.fillBody()
	}
	if m.chunked && int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, end := c.scan(p)
	c.use(n)
	m.whole = end
	return nil
}
