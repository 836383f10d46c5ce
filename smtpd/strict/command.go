package strict

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bsmtpd/mail"
)

const maxSkip = 64 << 10 // octets of an over-long line that are skipped before hanging up

// nextCommand reads a command line and gives it to go-smtp, or answers it. An
// error ends the session.
func (c *Conn) nextCommand() error {
	if c.finishing.Load() {
		return stopping()
	}
	line, n, err := c.readLine(c.deadline(time.Now()))
	if err != nil {
		return c.survive(err)
	}
	c.use(n)
	if c.mode == answering {
		c.order("AUTH", nil)
		c.line = append(append(c.line[:0], line...), '\r', '\n')
		c.hand = c.line
		return nil
	}
	word, arg, _ := bytes.Cut(line, []byte{' '})
	arg = bytes.Trim(arg, " ")
	verb := verbOf(word)
	switch verb {
	case "BDAT":
		return c.firstChunk(arg)
	case "STARTTLS":
		return c.startTLS(arg)
	}
	if !c.bringsMail(verb) {
		return nil
	}
	if f := c.before(verb, arg); f != nil {
		c.say(f)
		return nil
	}
	switch verb {
	case "RCPT":
		arg = c.nameType(c.namePostmaster(arg))
		fallthrough
	case "MAIL", "DATA", "RSET", "NOOP", "EHLO", "HELO", "VRFY", "QUIT", "AUTH", "HELP", "EXPN":
		c.order(verb, arg)
	default:
		c.answer(unknown())
	}
	return nil
}

// survive answers what was wrong with a line, after which the session goes on.
func (c *Conn) survive(err error) error {
	var f *Fault
	if errors.As(err, &f) && !f.HangUp {
		c.answer(f)
		return nil
	}
	return err
}

// bringsMail counts the commands that bring no mail forward, and ends the
// session when there are too many.
func (c *Conn) bringsMail(verb string) bool {
	switch verb {
	case "MAIL", "RCPT", "DATA", "BDAT", "QUIT", "AUTH":
		return true
	}
	c.junk++
	if c.cfg.MaxJunk == 0 || c.junk <= c.cfg.MaxJunk {
		return true
	}
	c.hangUp(fault(Errors, 421, status421, "too many commands without a message: closing the connection"))
	return false
}

// before is what is said to a command in go-smtp's place; nil: nothing.
func (c *Conn) before(verb string, arg []byte) *Fault {
	switch verb {
	case "MAIL", "RCPT", "DATA", "BDAT", "AUTH":
		// After STARTTLS go-smtp does not know that it has to forget the greeting.
		if !c.greeted {
			return badSequence("say EHLO first")
		}
	}
	if a, ok := c.watch.Command(verb, arg); ok {
		return &Fault{Reply: a.Reply, Cause: Watched, HangUp: a.HangUp}
	}
	return nil
}

// say is answer for replies that may be positive.
func (c *Conn) say(f *Fault) {
	if f.Positive() {
		c.out = appendReply(c.out, f.Reply)
		return
	}
	c.answer(f)
}

// order gives go-smtp a command.
func (c *Conn) order(verb string, arg []byte) {
	b := append(c.line[:0], verb...)
	c.arg = nil
	if len(arg) > 0 {
		b = append(b, ' ')
		b = append(b, arg...)
		c.arg = b[len(b)-len(arg):]
	}
	b = append(b, '\r', '\n')
	c.line, c.hand = b, b
	c.verb, c.mode = verb, asked
}

const postmaster = "<postmaster>"

// namePostmaster gives <postmaster>, in any case of letters, the domain that
// go-smtp insists on; RFC 5321 section 4.5.1 wants it taken without one.
func (c *Conn) namePostmaster(arg []byte) []byte {
	to, path, ok := bytes.Cut(arg, []byte{':'})
	path = bytes.TrimLeft(path, " ")
	if !ok || !bytes.EqualFold(to, []byte("TO")) || len(path) < len(postmaster) || !strings.EqualFold(string(path[:len(postmaster)]), postmaster) {
		return arg
	}
	return []byte("TO:<postmaster@" + c.cfg.Hostname + ">" + string(path[len(postmaster):]))
}

const orcpt = "ORCPT="

// nameType calls an address in ORCPT one of the type rfc822 where go-smtp does not
// know its type; RFC 3461 section 4.2 has any, and none is a reason to refuse mail.
func (c *Conn) nameType(arg []byte) []byte {
	c.addrType = ""
	end := bytes.LastIndexByte(arg, '>') // what is behind it is no part of the path
	if end < 0 || bytes.IndexByte(arg[end:], ';') < 0 {
		return arg
	}
	named := append([]byte(nil), arg[:end+1]...)
	for param := range bytes.FieldsSeq(arg[end+1:]) {
		named = append(named, ' ')
		if n := len(orcpt); len(param) > n && bytes.EqualFold(param[:n], []byte(orcpt)) {
			kind, addr, ok := bytes.Cut(param[n:], []byte{';'})
			c.addrType = ""
			if ok && strangeType(string(kind)) {
				c.addrType = strings.ToLower(string(kind))
				param = append([]byte(orcpt+"rfc822;"), addr...)
			}
		}
		named = append(named, param...)
	}
	return named
}

// strangeType reports an atom of letters, digits and hyphens that is no type of
// go-smtp's.
func strangeType(s string) bool {
	for _, ch := range []byte(s) {
		if !('a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' || ch == '-') {
			return false
		}
	}
	return s != "" && !strings.EqualFold(s, "rfc822") && !strings.EqualFold(s, "utf-8")
}

// OriginalType is the type of the address in ORCPT, of the RCPT that go-smtp was
// last given, in small letters; empty: as go-smtp says.
func (c *Conn) OriginalType() string { return c.addrType }

// verbOf is a verb in capitals, without an allocation where it is a usual one;
// empty for what cannot be a verb.
func verbOf(word []byte) string {
	var up [10]byte
	if len(word) > len(up) {
		return ""
	}
	for i, ch := range word {
		if 'a' <= ch && ch <= 'z' {
			ch -= 'a' - 'A'
		}
		if ch < 'A' || ch > 'Z' {
			return ""
		}
		up[i] = ch
	}
	for _, v := range [...]string{"MAIL", "RCPT", "DATA", "BDAT", "EHLO", "RSET", "QUIT", "NOOP", "HELO", "STARTTLS", "VRFY", "HELP", "EXPN", "AUTH"} {
		if string(up[:len(word)]) == v {
			return v
		}
	}
	return string(up[:len(word)])
}

func (c *Conn) maxCommand() int {
	return min(orDefault(c.cfg.MaxCommand, 2000), lineBuffer/2)
}

// readLine reads a command line. It returns it without its CRLF, and the octets
// to use with it; it is good until the next fill. A line that is not acceptable
// is used already and gives a *Fault. The whole of it must have come by a time.
func (c *Conn) readLine(by time.Time) (line []byte, n int, err error) {
	seen := 0
	for {
		p := c.pending()
		if i := bytes.IndexByte(p[seen:], '\n'); i >= 0 {
			n = seen + i + 1
			if f := c.checkLine(p[:n]); f != nil {
				c.use(n)
				return nil, 0, f
			}
			return p[:n-2], n, nil
		}
		if len(p) >= c.maxCommand() {
			return nil, 0, c.skipLine(by)
		}
		seen = len(p)
		if err := c.fill(by, false); err != nil {
			return nil, 0, err
		}
	}
}

// checkLine wants the CRLF of RFC 5321 section 2.3.8 from commands too: an LF
// alone would let one server see two lines where another sees one. go-smtp's
// reader takes both.
func (c *Conn) checkLine(p []byte) *Fault {
	n := len(p) - 2
	switch {
	case n < 0 || p[n] != '\r':
		return fault(LineEnding, 500, status552, "this line ends in a bare LF; commands end in CRLF")
	case bytes.IndexByte(p[:n], '\r') >= 0 || bytes.IndexByte(p[:n], 0) >= 0:
		return fault(LineEnding, 500, status552, "this line has a bare CR or a NUL in it")
	case len(p) > c.maxCommand():
		return c.longLine()
	case !utf8.Valid(p[:n]):
		return fault(Syntax, 500, status552, "this line is neither ASCII nor UTF-8")
	}
	return nil
}

func (c *Conn) longLine() *Fault {
	return fault(Syntax, 500, status552, "this line is longer than "+strconv.Itoa(c.maxCommand())+" octets")
}

// skipLine passes over the rest of a line that is too long.
func (c *Conn) skipLine(by time.Time) error {
	for skipped := 0; skipped < maxSkip; {
		p := c.pending()
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			c.use(i + 1)
			return c.longLine()
		}
		skipped += len(p)
		c.use(len(p))
		if err := c.fill(by, false); err != nil {
			return err
		}
	}
	return c.longLine().hangUp()
}

// Unread puts octets in front of what the client sends, a PROXY header's reader
// having read too far. It is used before all else, with at most 4 KiB.
func (c *Conn) Unread(b []byte) {
	if c.w != 0 || len(b) > len(c.buf)/2 {
		panic("strict: Unread of too much, or too late")
	}
	c.w = copy(c.buf, b)
}

// Early waits a while before go-smtp may greet, and refuses a client who speaks
// first: RFC 5321 section 3.1 makes it wait for the greeting; a program that
// only pours out mail does not. The error says why the session has ended; Close
// it then.
func (c *Conn) Early(wait time.Duration) error {
	err := error(nil)
	if len(c.pending()) == 0 {
		err = c.fill(time.Now().Add(wait), false)
	}
	var f *Fault
	switch {
	case err == nil:
		f = fault(Early, 554, status551, "protocol error: you spoke before the greeting").hangUp()
	case errors.As(err, &f) && f.Cause == Timeout:
		return nil
	case f == nil:
		c.broken(err)
		return err
	}
	c.hangUp(f)
	return f
}

// Refuse says why a connection is not taken, before go-smtp may greet. Close it
// then.
func (c *Conn) Refuse(r mail.Reply) {
	c.hangUp(&Fault{Reply: r, Cause: Watched})
	c.linger = false // it has said nothing
}
