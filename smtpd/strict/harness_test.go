package strict

import (
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"bsmtpd/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kept is a message that the backend took.
type kept struct{ from, to, arg, body string }

// world is a go-smtp server with a backend that keeps what it is given, behind
// Conns or, when bare, as it comes.
type world struct {
	Ignore
	cfg  Config
	pool Pool
	bare bool
	srv  *smtp.Server
	l    *handover

	mu     sync.Mutex // guards what follows
	mails  []kept
	told   []mail.Reply
	causes []Cause
	shakes []error
	panics []any
	answer map[string]Answer
}

func newWorld(t testing.TB) *world {
	w := &world{cfg: Config{Hostname: "mx.example", MaxMessage: 64 << 10, MaxLine: 100, MaxCommand: 1000,
		Texts: map[string]string{"502 5.5.1 Missing RCPT TO command.": "503 5.5.1 no valid recipients"}},
		l: &handover{queue: make(chan net.Conn), done: make(chan struct{})}}
	w.srv = newServer(w)
	served := make(chan struct{})
	go func() {
		defer close(served)
		w.srv.Serve(w.l)
	}()
	if t != nil {
		t.Cleanup(func() {
			w.srv.Close()
			<-served
		})
	}
	return w
}

func newServer(b smtp.Backend) *smtp.Server {
	s := smtp.NewServer(b)
	s.Domain, s.MaxLineLength = "mx.example", 0
	s.EnableSMTPUTF8, s.EnableDSN = true, true
	s.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

// handover is a net.Listener whose connections are made elsewhere.
type handover struct {
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *handover) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *handover) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *handover) Addr() net.Addr { return &net.TCPAddr{} }

// serve lets the server have a connection.
func (w *world) serve(raw net.Conn) *Conn {
	if w.bare {
		w.l.queue <- raw
		return nil
	}
	c := New(raw, &w.cfg, &w.pool, w)
	w.l.queue <- c
	return c
}

// session is the backend of one connection.
type session struct {
	w        *world
	conn     *Conn // nil: none
	from, to string
	arg      string // of RCPT, as it was sent
}

func (w *world) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s := &session{w: w}
	s.conn, _ = c.Conn().(*Conn)
	return s, nil
}

func (s *session) Reset()        { s.from, s.to = "", "" }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "panic"):
		panic("a bug in the backend")
	case strings.HasPrefix(to, "no"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	case strings.HasPrefix(to, "odd"):
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "\u00e9 \x00\r250 no\n" + to}
	case strings.HasPrefix(to, "busy"):
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "not now"}
	}
	s.to = to
	if s.conn != nil {
		_, arg := s.conn.Command()
		s.arg = string(arg)
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	switch {
	case strings.HasPrefix(s.to, "early"):
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "no room"}
	case strings.HasPrefix(s.to, "rash"):
		return nil
	case strings.HasPrefix(s.to, "half"):
		io.ReadFull(s.conn.Body(), make([]byte, 3))
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "no room\nfor more"}
	case strings.HasPrefix(s.to, "boom"):
		panic("a bug in the backend")
	}
	if s.conn != nil && s.to != "wrong@e.example" {
		r = s.conn.Body()
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.mails = append(s.w.mails, kept{s.from, s.to, s.arg, string(b)})
	return nil
}

func (w *world) Command(verb string, _ []byte) (Answer, bool) {
	a, ok := w.answer[verb]
	return a, ok
}

func (w *world) Refused(f *Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.causes, w.told = append(w.causes, f.Cause), append(w.told, f.Reply)
}

func (w *world) Handshake(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shakes = append(w.shakes, err)
}

func (w *world) Panicked(v any, _ []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.panics = append(w.panics, v)
}

// bodies are the messages that were taken.
func (w *world) bodies() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, m := range w.mails {
		out = append(out, m.body)
	}
	return out
}

// tape is a client that has said all it will say, in the given pieces, and then
// only listens.
type tape struct {
	pieces []string
	heard  strings.Builder
	done   chan struct{}
	once   sync.Once
}

func newTape(pieces ...string) *tape {
	return &tape{pieces: slices.Clone(pieces), done: make(chan struct{})}
}

func (t *tape) Read(p []byte) (int, error) {
	for len(t.pieces) > 0 && t.pieces[0] == "" {
		t.pieces = t.pieces[1:]
	}
	if len(t.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, t.pieces[0])
	t.pieces[0] = t.pieces[0][n:]
	return n, nil
}

func (t *tape) Write(p []byte) (int, error) { return t.heard.Write(p) }

func (t *tape) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}

func (t *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (t *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// play lets a client say something and returns what it heard.
func (w *world) play(pieces ...string) string {
	t := newTape(pieces...)
	w.serve(t)
	select {
	case <-t.done:
	case <-time.After(time.Minute): // much, for a busy machine
		panic(fmt.Sprintf("the session does not end after %q", pieces))
	}
	return t.heard.String()
}

// codes are the first four characters of each reply, the greeting excepted.
func codes(heard string) []string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimSuffix(heard, "\r\n"), "\r\n") {
		if len(line) > 3 && line[3] == ' ' {
			out = append(out, line[:3])
		}
	}
	return out[min(1, len(out)):]
}

const hello = "EHLO client.example\r\n"
const envelope = "MAIL FROM:<a@b.example>\r\nRCPT TO:<d@e.example>\r\n"
