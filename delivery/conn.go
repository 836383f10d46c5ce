package delivery

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/time/rate"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// writeBytes is the largest single write: small enough that on the slowest line
// each one ends within the command timeout.
const writeBytes = 32 << 10

// extensions are what the server offered in answer to EHLO.
type extensions struct {
	esmtp      bool
	pipelining bool // RFC 2920
	chunking   bool // RFC 3030
	eightBit   bool // RFC 6152
	utf8       bool // RFC 6531
	dsn        bool // RFC 3461
	startTLS   bool // RFC 3207
	size       bool // RFC 1870
	sizeLimit  int64
}

func parseExtensions(lines []string) extensions {
	e := extensions{esmtp: true}
	for _, line := range lines[1:] {
		word, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(word) {
		case "PIPELINING":
			e.pipelining = true
		case "CHUNKING":
			e.chunking = true
		case "8BITMIME":
			e.eightBit = true
		case "SMTPUTF8":
			e.utf8 = true
		case "DSN":
			e.dsn = true
		case "STARTTLS":
			e.startTLS = true
		case "SIZE":
			e.size = true
			e.sizeLimit, _ = strconv.ParseInt(strings.TrimSpace(args), 10, 64)
		}
	}
	return e
}

// conn is one connection to a mail server. Until the pipe takes over, one
// goroutine sends a command and reads its answer.
type conn struct {
	raw     net.Conn // as dialled; closing it ends everything
	net     net.Conn // raw, or TLS on it
	r       *bufio.Reader
	w       *bufio.Writer
	watch   *watch
	limiter *rate.Limiter // of bodies; nil: none
	cfg     *Config
	drop    func() bool // ends the tie to the session's context
	leave   func()      // takes the watch out of the session's

	host   string // the name it was looked up by
	remote netip.AddrPort
	banner string
	name   string // by which it greets
	ext    extensions
	pix    bool
	secure bool
}

// refusal is a server that cannot be reached, or would not talk to us.
type refusal struct {
	remote string
	banner string
	reply  mail.Reply // its words; Code 0: Text is ours
	loop   bool       // it is this server itself
	noTLS  bool       // try again without TLS
	final  bool       // reply is ours, and holds for all mail to the target
	err    error
}

func (e *refusal) Error() string {
	if e.reply.Code != 0 {
		return e.reply.String()
	}
	return e.err.Error()
}

func (e *refusal) Unwrap() error { return e.err }

func newConn(ctx context.Context, nc net.Conn, cfg *Config, limiter *rate.Limiter) *conn {
	c := &conn{raw: nc, net: nc, cfg: cfg, limiter: limiter}
	c.watch = newWatch(cfg.GreetingTimeout, nc.Close)
	c.drop = context.AfterFunc(ctx, func() { nc.Close() })
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.remote = a.AddrPort()
	}
	c.buffer()
	return c
}

// buffer makes new buffers, so that nothing read before TLS is believed after.
func (c *conn) buffer() {
	c.r = bufio.NewReaderSize(c.net, maxReplyLine)
	c.w = bufio.NewWriterSize(pieces{c}, writeBytes)
}

// close ends the connection and its watch.
func (c *conn) close() {
	if c.leave != nil {
		c.leave()
	}
	c.watch.stop()
	c.drop()
	c.raw.Close()
}

// pieces writes to the connection piece by piece and tells the watch.
type pieces struct{ c *conn }

func (p pieces) Write(b []byte) (int, error) {
	total := 0
	for {
		n, err := p.c.net.Write(b[:min(len(b), writeBytes)])
		total += n
		if err != nil {
			return total, err
		}
		p.c.watch.kick()
		if b = b[n:]; len(b) == 0 {
			return total, nil
		}
	}
}

// read reads one reply; errors are in words for people.
func (c *conn) read() (answer, error) {
	a, err := readAnswer(c.r)
	if err != nil {
		return a, c.explain(err)
	}
	c.watch.kick()
	return a, nil
}

// chatters reports whether more has come than the reply just read: then that reply
// may not be the answer that it is taken for. A 421 may come at any time.
func (c *conn) chatters() bool {
	n := min(c.r.Buffered(), 3)
	if n == 0 {
		return false
	}
	b, _ := c.r.Peek(n)
	return string(b) != "421"[:n]
}

// explain says what a failure of the network means here.
func (c *conn) explain(err error) error {
	var n *nonsense
	var u *unreadable
	switch {
	case errors.As(err, &n), errors.As(err, &u):
		return err
	case c.watch.fired.Load():
		return errors.New("the server gave no sign of life, and the connection was given up") // err only says that we closed it
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return errClosed
	}
	return host.Plain(err)
}

var errClosed = errors.New("the server closed the connection")

// ask sends one command and reads its reply.
func (c *conn) ask(command string) (answer, error) {
	if c.r.Buffered() > 0 {
		// Also guards STARTTLS: what was put into the stream before the
		// handshake must not be taken for an answer after it.
		return answer{}, &nonsense{"the server spoke before it was asked"}
	}
	c.w.WriteString(command)
	c.w.WriteString("\r\n")
	if err := c.w.Flush(); err != nil {
		return answer{}, c.explain(err)
	}
	return c.read()
}

// greet goes from the banner to the point where mail can be sent.
func (c *conn) greet(ctx context.Context, self *Self, tls tlsChoice) *refusal {
	a, err := c.read()
	if err != nil {
		return c.refuse(mail.Reply{}, err)
	}
	c.banner = a.Text
	if a.Code != 220 {
		return c.refuse(a.Reply, errors.New("the banner is a refusal"))
	}
	c.pix = isPix(strings.Join(a.lines, "\n"))
	if r := c.hello(self, c.firstWord(a)); r != nil {
		return r
	}
	return c.encrypt(ctx, self, tls)
}

// hello says EHLO, or HELO to a server that does not know it.
func (c *conn) hello(self *Self, greeting string) *refusal {
	if self.isMe(greeting) {
		return c.loops()
	}
	if !c.pix {
		a, err := c.ask("EHLO " + self.Hostname)
		switch {
		case err != nil:
			return c.refuse(mail.Reply{}, err)
		case a.Code == 250:
			c.ext = parseExtensions(a.lines)
			if c.name = c.firstWord(a); self.isMe(c.name) {
				return c.loops()
			}
			return nil
		case !a.Permanent() || c.secure:
			return c.refuse(a.Reply, errors.New("EHLO was refused"))
		}
	}
	// RFC 5321 section 3.2: a server that does not know EHLO is asked with HELO.
	c.ext = extensions{}
	a, err := c.ask("HELO " + self.Hostname)
	if err != nil {
		return c.refuse(mail.Reply{}, err)
	}
	if a.Code != 250 {
		return c.refuse(a.Reply, errors.New("HELO was refused"))
	}
	c.name = c.firstWord(a)
	return nil
}

func (c *conn) firstWord(a answer) string {
	word, _, _ := strings.Cut(strings.TrimSpace(a.lines[0]), " ")
	return printable(word, 255)
}

func (c *conn) refuse(reply mail.Reply, err error) *refusal {
	return &refusal{remote: c.remote.String(), banner: c.banner, reply: reply, err: err}
}

func (c *conn) loops() *refusal {
	r := c.refuse(mail.Reply{}, errLoop)
	r.loop = true
	return r
}

var errLoop = errors.New("route loops back to this server: it greets with this server's own name or listens on its address; change the route")

// tlsChoice is a route's policy, and what came of it so far.
type tlsChoice struct {
	policy directory.TLSPolicy
	host   string // whose certificate it must be, for TLSVerify
	broken bool   // a handshake failed before: go without
}
