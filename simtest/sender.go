package simtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bsmtpd/mail"
)

// Letter is a message in the ledger. Its number stands in its sender and in its
// text, so that it is known again wherever it turns up.
type Letter struct {
	Number int
	From   string
	To     []string
	Text   []byte // as it was written: with CRLF, without dot stuffing

	mu     sync.Mutex // guards what follows
	copies []Copy
	unsure int // tries whose outcome is not known: it may have been taken
	said   string
	waived bool
}

// Forgive says that the letter's end, a notification that nobody took, is meant.
func (l *Letter) Forgive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waived = true
}

func (l *Letter) forgiven() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waived
}

// Copy is a letter as it was taken: with a 250.
type Copy struct {
	ID mail.ID
	To []string // those who were accepted
	At time.Time
}

// Copies are the 250s.
func (l *Letter) Copies() []Copy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.copies)
}

// Taken reports whether it was taken at least once.
func (l *Letter) Taken() bool { return len(l.Copies()) > 0 }

// Said is the last reply of the last try.
func (l *Letter) Said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said
}

func (l *Letter) doubts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsure
}

// ledger is what the senders know.
type ledger struct {
	mu      sync.Mutex // guards what follows
	letters map[int]*Letter
	last    int
}

func (g *ledger) all() []*Letter {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Letter, 0, len(g.letters))
	for n := 1; n <= g.last; n++ {
		out = append(out, g.letters[n])
	}
	return out
}

var (
	numberMatch = regexp.MustCompile(`^m(\d+)@` + regexp.QuoteMeta(worldDomain) + `$`)
	headerMatch = regexp.MustCompile(`(?m)^X-Letter: (\d+)\r?$`)
)

// numberOf reads a letter's number from its sender; 0: it has none.
func numberOf(from string) int { return firstNumber(numberMatch.FindStringSubmatch(from)) }

// numberIn reads it from its text, or from what a notification returns of it.
func numberIn(text []byte) int { return firstNumber(headerMatch.FindStringSubmatch(string(text))) }

func firstNumber(match []string) int {
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// longestLine bounds what Write writes at a time.
const longestLine = 70

// Write makes a letter of size bytes, or a few more than a header has, to some
// addresses, or where an address is an account's name to somebody in its domain.
func (w *World) Write(size int, to ...string) *Letter {
	g := &w.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	l := &Letter{Number: g.last, From: fmt.Sprintf("m%d@%s", g.last, worldDomain)}
	for _, t := range to {
		if !strings.Contains(t, "@") {
			t = fmt.Sprintf("r%d@%s", g.last, w.account(t).domain)
		}
		l.To = append(l.To, t)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nSubject: letter %d\r\nX-Letter: %d\r\n\r\n", l.From, l.Number, l.Number)
	for i := 0; b.Len() < size-longestLine; i++ {
		fmt.Fprintf(&b, "%.*s line %d of letter %d\r\n", i%3, "...", i, l.Number)
	}
	fmt.Fprintf(&b, "%s\r\n", strings.Repeat("x", max(0, size-2-b.Len())))
	l.Text = b.Bytes()
	g.letters[l.Number] = l
	return l
}

// smallLetter is the size of letters where it does not matter.
const smallLetter = 600

// Mail sends n letters one after the other to accounts, or to the first account,
// over one connection. All must be taken.
func (w *World) Mail(n int, to ...string) []*Letter {
	w.t.Helper()
	out := w.TryMail(n, to...)
	for _, l := range out {
		if !l.Taken() {
			w.Fatalf("letter %d was not taken: %s", l.Number, l.Said())
		}
	}
	return out
}

// TryMail is Mail where the node may refuse.
func (w *World) TryMail(n int, to ...string) []*Letter {
	if len(to) == 0 {
		to = []string{string(w.first)}
	}
	var out []*Letter
	for range n {
		out = append(out, w.Write(smallLetter, to...))
	}
	w.Post(out...)
	return out
}

// Post hands letters over in one connection, as a mail server does; any goroutine
// may call it. A letter that is taken or refused is so noted in the ledger. When
// the connection is lost, the letters behind are not tried.
func (w *World) Post(letters ...*Letter) error {
	p, err := w.dial()
	if err != nil {
		for _, l := range letters {
			l.note(err.Error())
		}
		return err
	}
	defer p.c.Close()
	for _, l := range letters {
		if err := p.send(l); err != nil {
			l.note(err.Error())
			return err
		}
	}
	p.ask("QUIT")
	return nil
}

func (l *Letter) note(said string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = said
}

// postman is a connection of a sender to the node.
type postman struct {
	w *World
	c net.Conn
	r *bufio.Reader
}

// Patience of senders (RFC 5321 section 4.5.3.2).
const (
	dialPatience  = 30 * time.Second
	replyPatience = 5 * time.Minute
	finalPatience = 10 * time.Minute
)

func (w *World) dial() (*postman, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialPatience)
	defer cancel()
	c, err := w.senders.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(nodeAddr, 25).String())
	if err != nil {
		return nil, err
	}
	p := &postman{w, c, bufio.NewReader(c)}
	err = p.want(p.read(replyPatience))
	if err == nil {
		err = p.want(p.ask("EHLO relay." + worldDomain))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

// answer is a reply of the node.
type answer struct {
	code int
	text string
}

func (a answer) good() bool { return a.code/100 == 2 || a.code == 354 }

// read reads a reply of one or more lines.
func (p *postman) read(patience time.Duration) (answer, error) {
	p.c.SetReadDeadline(time.Now().Add(patience))
	var a answer
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return a, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 {
			return a, fmt.Errorf("the node said %q", line)
		}
		a.code, err = strconv.Atoi(line[:3])
		if err != nil {
			return a, fmt.Errorf("the node said %q", line)
		}
		a.text = line
		if line[3] == ' ' {
			return a, nil
		}
	}
}

func (p *postman) ask(line string) (answer, error) {
	p.c.SetWriteDeadline(time.Now().Add(replyPatience))
	if _, err := p.c.Write([]byte(line + "\r\n")); err != nil {
		return answer{}, err
	}
	return p.read(replyPatience)
}

// refused is a reply that ends a letter or a connection.
type refused struct{ answer }

func (r refused) Error() string { return r.text }

func (p *postman) want(a answer, err error) error {
	if err == nil && !a.good() {
		err = refused{a}
	}
	return err
}

// send hands one letter over. An error: the connection is of no more use.
func (p *postman) send(l *Letter) error {
	taken, err := p.envelope(l)
	if err != nil || len(taken) == 0 {
		return err
	}
	a, err := p.ask("DATA")
	if err != nil {
		return err
	}
	l.note(a.text)
	if a.code != 354 {
		return p.endOf(a)
	}
	p.c.SetWriteDeadline(time.Now().Add(finalPatience))
	if _, err := p.c.Write(stuffed(l.Text)); err != nil {
		return err // its end has not gone out, so it cannot have been taken
	}
	a, err = p.read(finalPatience)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.unsure++
		return err
	case a.code == 250:
		id, err := mail.ParseID(a.text[strings.LastIndexByte(a.text, ' ')+1:])
		if err != nil {
			return fmt.Errorf("no ID in %q: %w", a.text, err)
		}
		l.copies = append(l.copies, Copy{ID: id, To: taken, At: time.Now()})
	case a.code == 451 || a.code == 421:
		l.unsure++ // where the node does not know the outcome it says 451
	}
	l.said = a.text
	return p.endOf(a)
}

// endOf is an error where a reply ends the connection.
func (p *postman) endOf(a answer) error {
	if a.code == 421 {
		return refused{a}
	}
	return nil
}

// envelope says MAIL and RCPT; nobody: the letter has been refused.
func (p *postman) envelope(l *Letter) (taken []string, err error) {
	a, err := p.ask("MAIL FROM:<" + l.From + ">")
	if err != nil {
		return nil, err
	}
	l.note(a.text)
	if !a.good() {
		return nil, p.endOf(a)
	}
	for _, to := range l.To {
		if a, err = p.ask("RCPT TO:<" + to + ">"); err != nil {
			return nil, err
		}
		l.note(a.text)
		if a.good() {
			taken = append(taken, to)
		} else if a.code == 421 {
			return nil, refused{a}
		}
	}
	if len(taken) == 0 {
		_, err = p.ask("RSET")
	}
	return taken, err
}

// stuffed is a text as DATA carries it, with its end.
func stuffed(text []byte) []byte {
	b := bytes.ReplaceAll(text, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(b, []byte(".")) {
		b = append([]byte("."), b...)
	}
	return append(b[:len(b):len(b)], ".\r\n"...)
}

// Vanish hands a letter over and hangs up at a stage; silent: only after so long, in
// which nothing more is heard of the sender. After the last dot it may have been
// taken all the same.
func (w *World) Vanish(l *Letter, stage string, silent time.Duration) {
	p, err := w.dialUntil(stage)
	if err != nil {
		return
	}
	defer p.c.Close()
	p.vanish(l, stage)
	if silent > 0 {
		w.Pause(silent)
	}
}

// vanish goes as far as a stage.
func (p *postman) vanish(l *Letter, stage string) {
	for _, step := range []struct{ stage, line string }{{atMail, "MAIL FROM:<" + l.From + ">"}, {atRcpt, "RCPT TO:<" + l.To[0] + ">"}, {atData, "DATA"}} {
		if stage == atConnect || stage == atHello {
			return
		}
		p.c.SetWriteDeadline(time.Now().Add(replyPatience))
		if _, err := p.c.Write([]byte(step.line + "\r\n")); err != nil || step.stage == stage {
			return
		}
		if a, err := p.read(replyPatience); err != nil || !a.good() {
			return
		}
	}
	text := stuffed(l.Text)
	switch stage {
	case atBody:
		text = text[:len(text)/2]
	case atDot: // all but its end
		text = text[:len(text)-len(".\r\n")]
	default:
		l.mu.Lock()
		l.unsure++
		l.mu.Unlock()
	}
	p.c.SetWriteDeadline(time.Now().Add(finalPatience))
	p.c.Write(text)
}

// dialUntil is dial that may end before the greetings.
func (w *World) dialUntil(stage string) (*postman, error) {
	if stage != atConnect {
		return w.dial()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialPatience)
	defer cancel()
	c, err := w.senders.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(nodeAddr, 25).String())
	return &postman{w, c, bufio.NewReader(c)}, err
}
