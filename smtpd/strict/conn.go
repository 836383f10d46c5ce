// Package strict stands between the network and go-smtp's server, and lets only
// such octets through as the two of them cannot understand differently.
//
// go-smtp speaks the protocol. What it reads comes from a Conn, one command line
// at a time, so that Conn knows at each octet what go-smtp takes it for:
//
//   - a command: a whole line that ends in CRLF and is made of UTF-8 without
//     NUL, CR and LF. Any other is answered here and never seen by go-smtp.
//   - the content of a message, after go-smtp itself has said 354. That goes to
//     the backend directly (Conn.Body), and go-smtp only gets the end of data. It
//     has been looked through (content.go) before. At the first bare CR, bare LF,
//     NUL or over-long line the reading fails, so that no backend can take the
//     message; the rest of it is thrown away up to where RFC 5321 says that it
//     ends, and the client is told why.
//
// BDAT and STARTTLS are spoken here, because go-smtp 0.25.1 cannot be helped with
// them from outside. Its BDAT hands the content to a goroutine that outlives
// RSET and may then answer for a later message (chunk.go turns the chunks into
// the DATA that go-smtp knows); its STARTTLS would hide the plaintext (tls.go).
//
// The server's TLSConfig, timeouts, MaxLineLength and MaxMessageBytes are to be
// zero: all that is Config's.
//
// Smuggling needs octets that are content for one reader and commands for
// another. Here there is one reader of content, and it passes on only what all
// readers agree on.
package strict

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"bsmtpd/mail"
)

// Config is how strict a Conn is and how long it waits. Conns only read it.
type Config struct {
	Hostname string      // this server, in the replies to EHLO and for <postmaster>
	TLS      *tls.Config // nil: STARTTLS is not offered

	MaxCommand int   // octets of a command line with its CRLF; 0: 2000
	MaxLine    int   // octets of a line of a message without its CRLF; 0: 998
	MaxMessage int64 // octets of a message; 0: 64 MiB

	MaxErrors int // wrong commands since the last accepted message; 0: no limit
	MaxJunk   int // commands since then that bring no mail forward; 0: no limit

	IdleTimeout    time.Duration // silence, or one command line; 0: 5 minutes
	SessionTimeout time.Duration // from New on; 0: 2 hours
	DataGrace      time.Duration // of a message, before MinRate counts; 0: 5 minutes
	MinRate        int64         // octets per second; 0: 500
	WriteTimeout   time.Duration // for the client to take replies; 0: 1 minute

	// Texts says which replies of go-smtp are said in other words. Keys are
	// negative reply lines without CRLF, or verbs, which stand for the positive
	// reply to them (not DATA and BDAT). Values are reply lines.
	Texts map[string]string
}

// Watcher hears what happens on a Conn. Its methods are called on the goroutine
// that reads and must not call Read, Write or Close.
type Watcher interface {
	// Command may answer a command in go-smtp's place. verb is in capitals, arg
	// without blanks around it and good during the call. It is not asked about
	// what Conn answers itself: STARTTLS, and commands amid BDAT.
	Command(verb string, arg []byte) (Answer, bool)
	// Refused hears of each negative reply once.
	Refused(*Fault)
	// Handshake hears of each TLS handshake; nil: it was done.
	Handshake(error)
	// Panicked hears of a panic in this package or in a Watcher. The connection
	// ends, and nothing else.
	Panicked(value any, stack []byte)
}

// Answer is what a Watcher says in go-smtp's place.
type Answer struct {
	mail.Reply
	HangUp bool
}

// Ignore is a Watcher that wants nothing; embed it to want a little.
type Ignore struct{}

var _ Watcher = Ignore{}

func (Ignore) Command(string, []byte) (Answer, bool) { return Answer{}, false }
func (Ignore) Refused(*Fault)                        {}
func (Ignore) Handshake(error)                       {}
func (Ignore) Panicked(any, []byte)                  {}

// mode is what the next octets from the client are, and what go-smtp does.
type mode uint8

const (
	greeting  mode = iota // go-smtp has not greeted yet
	command               // a command
	asked                 // go-smtp has a command and owes the reply
	answering             // the client's part of a SASL exchange
	taking                // the content of a message, which the backend reads
	ended                 // it has read all of it, and go-smtp owes the reply
	failed                // reading it fails: the client hears of that, not go-smtp's reply
	refused               // the backend has not read all of it: go-smtp owes a refusal
	swallow               // the rest of a message that was refused
	over                  // the session has ended
)

// Conn is one client, as go-smtp's server gets it from a net.Listener. Read,
// Write and Close are go-smtp's; Stop, Finish and Abort may be called by anyone.
type Conn struct {
	cfg   *Config
	watch Watcher
	wire
	inUse atomic.Bool // somebody is in Read, Write or Close

	mode     mode
	verb     string // the last command that go-smtp was given
	arg      []byte // its argument
	addrType string // of its ORCPT, where go-smtp was told otherwise
	hand     []byte // what go-smtp is to read before all else
	line     []byte // the memory of arg and hand
	written  []byte // a reply that go-smtp has not finished
	fail     error  // what Read returns in failed and refused, and at first in over
	held     *Fault // what the client is told after swallow; nil: late
	late     []byte // a reply of go-smtp's
	greeted  bool   // EHLO or HELO was accepted, since TLS if there is TLS
	secured  *tls.ConnectionState

	msg message

	errs int // of MaxErrors
	junk int // of MaxJunk
}

var _ net.Conn = (*Conn)(nil)

// New wraps a connection. The pool may be shared by all Conns of a process.
func New(raw net.Conn, cfg *Config, pool *Pool, watch Watcher) *Conn {
	c := &Conn{cfg: cfg, watch: watch}
	c.wire.init(raw, pool, cfg)
	return c
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Read gives go-smtp at most one command line, or checked content of a message.
func (c *Conn) Read(p []byte) (n int, err error) {
	if !c.enter() {
		return 0, net.ErrClosed
	}
	defer c.leave()
	defer c.guard(&err, io.EOF)
	for {
		if len(c.hand) > 0 {
			n := copy(p, c.hand)
			c.hand = c.hand[n:]
			return n, nil
		}
		if len(c.out) >= flushAt && c.mode != over {
			if err := c.flush(); err != nil {
				c.broken(err)
			}
		}
		switch c.mode {
		case command, answering:
			err = c.nextCommand()
		case taking:
			c.finishData()
		case swallow:
			err = c.swallowMore()
		case failed, refused, over:
			if c.fail != nil {
				return 0, c.fail
			}
			return 0, io.EOF
		default:
			panic("strict: go-smtp reads where it owes a reply: it has changed")
		}
		if err != nil {
			c.broken(err)
		}
	}
}

// broken ends the session for a fault of the network or of time.
func (c *Conn) broken(err error) {
	var f *Fault
	if errors.As(err, &f) {
		c.hangUp(f)
		return
	}
	c.mode, c.fail = over, nil
	if c.msg.open {
		c.fail = err
	}
}

// hangUp says a last reply and ends the session.
func (c *Conn) hangUp(f *Fault) {
	f.HangUp = true
	c.refuse(f)
	c.linger = f.Cause != Timeout && f.Cause != Stopping // those wait for silent clients
	c.mode, c.fail = over, nil
	if c.msg.open {
		c.fail = f
	}
}

// Close sends what is left to be said and closes the connection. While another
// goroutine is reading or writing it only does the latter.
func (c *Conn) Close() (err error) {
	if !c.enter() {
		return c.raw.Close()
	}
	defer c.leave()
	defer c.guard(&err, io.EOF)
	c.mode, c.fail = over, nil
	c.wire.close()
	return nil
}

// enter makes sure that one goroutine uses c, for go-smtp's server may close it
// from outside.
func (c *Conn) enter() bool { return c.inUse.CompareAndSwap(false, true) }

func (c *Conn) leave() { c.inUse.Store(false) }

// guard ends the connection after a panic, and says then. go-smtp only catches
// those in its own commands; one in Read would end the process.
func (c *Conn) guard(err *error, then error) {
	v := recover()
	if v == nil {
		return
	}
	c.watch.Panicked(v, debug.Stack())
	c.out = appendReply(c.out, mail.Reply{Code: 421, Status: mail.Status{4, 3, 0}, Text: "a fault in this server; try again later"})
	c.mode, c.fail, c.hand = over, nil, nil
	*err = then
}

// TLS says how the connection is secured; false: it is not.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	if c.secured == nil {
		return tls.ConnectionState{}, false
	}
	return *c.secured, true
}

// Command is what go-smtp was last given. A backend finds here the addresses as
// they were sent: go-smtp takes the quotes off a local part, after which
// "a@b"@c and a@b@c are the same. arg is good until the next Read.
func (c *Conn) Command() (verb string, arg []byte) { return c.verb, c.arg }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline does nothing: Config says how long Conn waits. Leave the timeouts
// of go-smtp's server at 0.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
