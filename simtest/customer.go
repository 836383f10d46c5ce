package simtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Manner is how a mail server behaves. The zero Manner is a good server.
type Manner struct {
	Plain   bool // knows HELO only
	Slow    bool // ESMTP without PIPELINING and CHUNKING
	PIX     bool // behind a PIX firewall with "fixup"
	PerConn int  // messages on a connection, then 421; 0: any number
	Delay   time.Duration
	Grey    time.Duration // a sender and recipient are told 451 for so long

	// At these stages of the dialogue it does not go on as it should, by
	// chance: Chance 0 is always.
	Hang   string
	Drop   string
	Say    map[string]string // a reply in place of the right one
	Chance float64

	Forge bool // a message is lost behind its back, and said to be kept; by Chance
}

// The stages.
const (
	atConnect = "connect"
	atHello   = "EHLO"
	atMail    = "MAIL"
	atRcpt    = "RCPT"
	atData    = "DATA"
	atBody    = "body"   // in the middle of it
	atDot     = "."      // the message has come, and is not kept
	atKept    = "kept"   // it is kept, and the reply not given
	atQuit    = "QUIT"   // after which all is well
	atGreet   = "banner" // before it
)

// Delivery is a message that a server has taken.
type Delivery struct {
	Letter int    // its number, read from its text
	From   string // envelope
	To     string
	At     time.Time
	Data   []byte
	denied bool // it was kept, and something else was said
	conn   *visit
}

// visit is one connection to a server.
type visit struct {
	s       *Server
	from    netip.Addr
	began   time.Time
	ended   time.Time
	clean   bool // it ended with QUIT, after all replies were given
	open    bool
	letters []int // in the order in which MAIL named them
}

// wasClean reports whether the node has got all replies.
func (v *visit) wasClean() bool {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return v.clean
}

// Server is a mail server, of a customer or of somebody in the world.
type Server struct {
	w       *World
	name    string
	domain  string
	addr    netip.Addr
	machine *Machine

	mu     sync.Mutex // guards what follows
	rng    *rand.Rand
	manner Manner
	got    []Delivery
	visits []*visit
	seen   map[string]time.Time // greylist: sender and recipient, first try
	poison int                  // a letter at which it breaks off; 0: none
}

// newServer starts a server for a domain.
func (w *World) newServer(name, domain string, addr netip.Addr) *Server {
	s := &Server{w: w, name: name, domain: domain, addr: addr, machine: w.Net.Machine(addr), rng: w.chance.stream("server " + name),
		seen: map[string]time.Time{}}
	w.servers = append(w.servers, s)
	s.listen()
	return s
}

func (s *Server) listen() {
	l, err := s.machine.Listen("tcp", netip.AddrPortFrom(s.addr, 25).String())
	if err != nil {
		s.w.Fatalf("server %s: %v", s.name, err)
	}
	l.(*listener).whole = true
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
}

// Behave changes the server's manner, for commands from now on.
func (s *Server) Behave(m Manner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manner = m
}

// choke lets the server break off in the middle of a letter; 0: of none.
func (s *Server) choke(letter int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poison = letter
}

func (s *Server) chokes(from string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.poison != 0 && s.poison == numberOf(strings.Trim(from, "<>"))
}

// Got are the messages taken so far, in order.
func (s *Server) Got() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Delivery(nil), s.got...)
}

// Letters are the numbers of the messages taken so far, in order.
func (s *Server) Letters() []int {
	var out []int
	for _, d := range s.Got() {
		out = append(out, d.Letter)
	}
	return out
}

// Visits is how many connections have come so far.
func (s *Server) Visits() []visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []visit
	for _, v := range s.visits {
		out = append(out, *v)
	}
	return out
}

func (s *Server) ways() Manner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manner
}

// strikes reports whether a manner's fault happens now.
func (s *Server) strikes(m *Manner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.Chance == 0 || s.rng.Float64() < m.Chance
}

// struck is strikes for a fault at a stage, which is counted.
func (d *dialogue) struck(m *Manner, what, at string) bool {
	hit := d.s.strikes(m)
	if hit {
		d.s.w.fault("a server %s at %s", what, at)
	}
	return hit
}

// dialogue is one connection's.
type dialogue struct {
	s     *Server
	c     net.Conn
	r     *bufio.Reader
	v     *visit
	fixup *fixup

	from string
	to   []string
	body bytes.Buffer // of BDAT
	sent int
}

// over ends a dialogue.
type over struct{ error }

func (s *Server) serve(c net.Conn) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	d := &dialogue{s: s, c: c, v: &visit{s: s, from: from, began: time.Now(), open: true}}
	s.mu.Lock()
	s.visits = append(s.visits, d.v)
	pix := s.manner.PIX
	s.mu.Unlock()
	if pix {
		d.fixup = &fixup{r: c}
		d.r = bufio.NewReader(d.fixup)
	} else {
		d.r = bufio.NewReader(c)
	}
	clean := d.talk() == nil
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	d.v.clean, d.v.open, d.v.ended = clean, false, time.Now()
}

// stage does what the manner says for a stage; done: the reply is given already.
func (d *dialogue) stage(at string) (done bool, err error) {
	m := d.s.ways()
	if m.Delay > 0 {
		time.Sleep(m.Delay)
	}
	switch {
	case m.Hang == at && d.struck(&m, "hangs", at):
		io.Copy(io.Discard, d.c) // until the other side has had enough
		return false, over{io.EOF}
	case m.Drop == at && d.struck(&m, "drops the connection", at):
		return false, over{io.EOF}
	case m.Say[at] != "" && d.struck(&m, "says "+strings.Fields(m.Say[at])[0], at):
		return true, d.say(m.Say[at])
	}
	return false, nil
}

func (d *dialogue) say(text string) error {
	_, err := d.c.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n"))
	return err
}

// reply is stage, and the usual reply where the manner has none.
func (d *dialogue) reply(at, text string) (usual bool, err error) {
	done, err := d.stage(at)
	if err != nil || done {
		return false, err
	}
	return true, d.say(text)
}

// talk speaks SMTP until QUIT, then nil, or until the connection is lost.
func (d *dialogue) talk() error {
	if _, err := d.stage(atConnect); err != nil {
		return err
	}
	banner := "220 " + d.s.name + ".example ESMTP"
	if d.fixup != nil {
		banner = "220 " + strings.Repeat("*", 30) + "2" + strings.Repeat("*", 12) + "0*" // what is left of it
	}
	if _, err := d.reply(atGreet, banner); err != nil {
		return err
	}
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			return err
		}
		word, arg, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if strings.EqualFold(word, "QUIT") {
			_, err := d.reply(atQuit, "221 bye")
			return err
		}
		if err := d.command(strings.ToUpper(word), arg); err != nil {
			return err
		}
	}
}

func (d *dialogue) command(word, arg string) error {
	switch word {
	case "EHLO":
		return d.hello()
	case "HELO":
		_, err := d.reply(atHello, "250 "+d.s.name)
		return err
	case "MAIL":
		return d.mail(arg)
	case "RCPT":
		return d.rcpt(arg)
	case "DATA":
		return d.data()
	case "BDAT":
		return d.bdat(arg)
	case "RSET":
		d.reset()
		return d.say("250 2.0.0 ok")
	}
	return d.say("500 5.5.2 what?")
}

func (d *dialogue) reset() {
	d.from, d.to = "", nil
	d.body.Reset()
}

func (d *dialogue) hello() error {
	m := d.s.ways()
	switch {
	case m.Plain || d.fixup != nil:
		return d.say("500 5.5.1 what?")
	case m.Slow:
		_, err := d.reply(atHello, "250-"+d.s.name+"\n250-8BITMIME\n250 SIZE 52428800")
		return err
	}
	_, err := d.reply(atHello, "250-"+d.s.name+"\n250-PIPELINING\n250-8BITMIME\n250-SIZE 52428800\n250-DSN\n250-ENHANCEDSTATUSCODES\n250 CHUNKING")
	return err
}

var pathIn = regexp.MustCompile(`<([^>]*)>`)

func pathOf(arg string) string {
	if m := pathIn.FindStringSubmatch(arg); m != nil {
		return m[1]
	}
	return ""
}

func (d *dialogue) mail(arg string) error {
	if d.s.ways().PerConn > 0 && d.sent >= d.s.ways().PerConn {
		d.say("421 4.7.0 enough for today")
		return over{io.EOF}
	}
	d.reset()
	from := pathOf(arg)
	if n := numberOf(from); n > 0 {
		d.s.mu.Lock()
		d.v.letters = append(d.v.letters, n)
		d.s.mu.Unlock()
	}
	usual, err := d.reply(atMail, "250 2.1.0 ok")
	if usual {
		d.from = "<" + from + ">"
	}
	return err
}

func (d *dialogue) rcpt(arg string) error {
	to := pathOf(arg)
	switch {
	case d.from == "":
		return d.say("503 5.5.1 MAIL first")
	case strings.HasPrefix(to, "nobody"):
		return d.say("550 5.1.1 <" + to + ">: there is no such person here")
	case d.grey(to):
		return d.say("451 4.7.1 greylisted, come again in 5 minutes")
	}
	usual, err := d.reply(atRcpt, "250 2.1.5 ok")
	if usual {
		d.to = append(d.to, to)
	}
	return err
}

// grey reports whether the greylist keeps a recipient off.
func (d *dialogue) grey(to string) bool {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	key := d.from + " " + to
	first, known := s.seen[key]
	if !known {
		first = time.Now()
		s.seen[key] = first
	}
	return time.Since(first) < s.manner.Grey
}

func (d *dialogue) data() error {
	if len(d.to) == 0 {
		return d.say("503 5.5.1 RCPT first")
	}
	d.fixup.watch(true)
	defer d.fixup.watch(false)
	if usual, err := d.reply(atData, "354 go on"); err != nil || !usual {
		return err
	}
	var b bytes.Buffer
	for {
		line, err := d.r.ReadBytes('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" {
			return d.keep(b.Bytes())
		}
		if b.Len() == 0 {
			if _, err := d.stage(atBody); err != nil {
				return err
			}
		}
		b.Write(bytes.TrimPrefix(line, []byte(".")))
	}
}

func (d *dialogue) bdat(arg string) error {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil {
		return over{err}
	}
	if _, err := io.CopyN(&d.body, d.r, int64(n/2)); err != nil {
		return err
	}
	if _, err := d.stage(atBody); err != nil {
		return err
	}
	if _, err := io.CopyN(&d.body, d.r, int64(n-n/2)); err != nil {
		return err
	}
	if len(d.to) == 0 {
		return d.say("503 5.5.1 RCPT first")
	}
	if last == "" {
		return d.say("250 2.0.0 ok")
	}
	return d.keep(d.body.Bytes())
}

// keep takes a message and says so.
func (d *dialogue) keep(data []byte) error {
	if d.s.chokes(d.from) {
		return over{io.EOF}
	}
	if done, err := d.stage(atDot); err != nil || done {
		d.reset()
		return err
	}
	if m := d.s.ways(); m.Forge && d.s.strikes(&m) {
		d.reset()
		return d.say("250 2.0.0 kept")
	}
	data = bytes.Clone(data)
	d.s.mu.Lock()
	first := len(d.s.got)
	for _, to := range d.to {
		d.s.got = append(d.s.got, Delivery{Letter: numberIn(data), From: strings.Trim(d.from, "<>"), To: to, At: time.Now(), Data: data, conn: d.v})
	}
	end := len(d.s.got)
	d.s.mu.Unlock()
	d.sent++
	d.reset()
	usual, err := d.reply(atKept, fmt.Sprintf("250 2.0.0 kept as %d", d.sent))
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for i := first; i < end; i++ {
		d.s.got[i].denied = !usual
	}
	return err
}
