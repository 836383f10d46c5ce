package smtpd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"

	"bsmtpd/smtpd/strict"
)

// maxCommand bounds a command line with its CRLF. RFC 5321 section 4.5.3.1.4
// wants 512 octets; extensions add to them, an ORCPT alone 500 (RFC 3461).
const maxCommand = 4096

// engine is the go-smtp server of all listeners. It gets connections that have
// passed the gate, behind a strict.Conn.
type engine struct {
	srv   *smtp.Server
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

var _ net.Listener = (*engine)(nil)

// newEngine makes a server without the limits that strict.Config has.
func newEngine(hostname string, log *slog.Logger, m *metrics) *engine {
	e := &engine{queue: make(chan net.Conn), done: make(chan struct{})}
	e.srv = smtp.NewServer(smtp.BackendFunc(newSession))
	e.srv.Domain = hostname
	e.srv.MaxLineLength = 0
	e.srv.EnableSMTPUTF8, e.srv.EnableDSN = true, true
	e.srv.ErrorLog = engineLog{log, m}
	return e
}

func newSession(c *smtp.Conn) (smtp.Session, error) {
	s, ok := c.Conn().(*served)
	if !ok {
		return nil, errors.New("smtpd: go-smtp has a connection that is not ours")
	}
	return s.session, nil
}

// serve hands connections to go-smtp until stop.
func (e *engine) serve() { e.srv.Serve(e) }

// take gives go-smtp a connection; false: it has been stopped.
func (e *engine) take(c net.Conn) bool {
	select {
	case e.queue <- c:
		return true
	case <-e.done:
		return false
	}
}

// Accept implements net.Listener for go-smtp.
func (e *engine) Accept() (net.Conn, error) {
	select {
	case c := <-e.queue:
		return c, nil
	case <-e.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (e *engine) Close() error {
	e.once.Do(func() { close(e.done) })
	return nil
}

// Addr implements net.Listener.
func (e *engine) Addr() net.Addr { return &net.TCPAddr{} }

// served is a connection as go-smtp has it. Its end is the session's.
type served struct {
	*strict.Conn
	session *session
}

func (c *served) Close() error {
	err := c.Conn.Close()
	c.session.end()
	return err
}

// engineLog is where go-smtp tells of panics in its own code. Those of a session
// do not get there.
type engineLog struct {
	log *slog.Logger
	m   *metrics
}

var _ smtp.Logger = engineLog{}

func (l engineLog) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "panic") {
		l.m.panics.Inc()
		l.log.Error("a bug ended an SMTP session; please report it", "go-smtp", fmt.Sprintf(format, args...))
		return
	}
	l.log.Info("go-smtp", "says", fmt.Sprintf(format, args...))
}

func (l engineLog) Println(args ...any) { l.Printf("%s", fmt.Sprintln(args...)) }

// replies are those of go-smtp that are said in other words: 502 is the code for
// commands that do not exist (RFC 5321 section 4.2.3), 555 that for parameters
// that are not known (section 4.1.1.11), and 250 should not quote the client.
func replies() map[string]string {
	return map[string]string{
		"MAIL":                                 "250 2.1.0 sender ok",
		"RCPT":                                 "250 2.1.5 recipient ok",
		"502 5.5.1 Missing MAIL FROM command.": "503 5.5.1 MAIL comes first",
		"502 5.5.1 Missing RCPT TO command.":   "554 5.5.1 no valid recipients",
		"501 5.5.2 Was expecting MAIL arg syntax of FROM:<address>": "501 5.5.2 expected MAIL FROM:<address>",
		"501 5.5.2 Was expecting RCPT arg syntax of TO:<address>":   "501 5.5.2 expected RCPT TO:<address>",
		"500 5.5.4 Unknown MAIL FROM argument":                      "555 5.5.4 a parameter of MAIL is not known here",
		"500 5.5.4 Unknown RCPT TO argument":                        "555 5.5.4 a parameter of RCPT is not known here",
		"504 5.5.4 BINARYMIME is not implemented":                   "501 5.5.4 BODY is 7BIT or 8BITMIME",
	}
}

// wireConfig is what a strict.Conn needs to know.
func (s *settings) wireConfig() *strict.Config {
	return &strict.Config{
		Hostname: s.Hostname, MaxCommand: maxCommand, MaxLine: s.MaxLine, MaxMessage: int64(s.MaxMessage),
		MaxErrors: s.MaxErrors, MaxJunk: s.MaxJunk,
		IdleTimeout: s.IdleTimeout, SessionTimeout: s.SessionTimeout, DataGrace: s.DataGrace, MinRate: int64(s.MinRate), WriteTimeout: s.WriteTimeout,
		Texts: replies(),
	}
}
