package strict

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// model is what a client that says everything at once should hear and have
// stored. It is written from RFC 5321 and 3030 over the whole of what is said,
// with no regard to how the octets come, and shares no code with Conn.
type model struct {
	cfg   *Config
	in    string
	heard []string // codes
	kept  []string // bodies

	hello, mail bool
	rcpts       int
}

func (m *model) say(code int) { m.heard = append(m.heard, strconv.Itoa(code)) }

// run is false where the model stops: the connection is closed there.
func (m *model) run() {
	for m.command() {
	}
}

// line cuts off the next command line; "": it is not acceptable.
func (m *model) line() (line string, fault, end bool) {
	i := strings.IndexByte(m.in, '\n')
	if i < 0 {
		return "", false, true
	}
	line, m.in = m.in[:i+1], m.in[i+1:]
	long := len(line) > m.cfg.MaxCommand
	line, crlf := strings.CutSuffix(line, "\r\n")
	return line, !crlf || long || strings.ContainsAny(line, "\r\x00") || !utf8.ValidString(line), false
}

func (m *model) command() bool {
	line, fault, end := m.line()
	if end {
		return false
	}
	if fault {
		m.say(500)
		return true
	}
	verb, arg, _ := strings.Cut(line, " ")
	arg = strings.Trim(arg, " ")
	switch capitals(verb) {
	case "EHLO":
		m.hello = true
		m.reset()
		m.say(250)
	case "RSET":
		m.reset()
		m.say(250)
	case "NOOP":
		m.say(250)
	case "QUIT":
		m.say(221)
		return false
	case "MAIL":
		if m.wanted(m.hello, 503) {
			m.mail = true
			m.say(250)
		}
	case "RCPT":
		if m.wanted(m.hello, 503) && m.wanted(m.mail, 502) {
			m.rcpts++
			m.say(250)
		}
	case "DATA":
		return !m.wanted(m.hello, 503) || !m.wanted(m.rcpts > 0, 503) || m.data()
	case "BDAT":
		return m.chunks(arg)
	default:
		m.say(500)
	}
	return true
}

// capitals knows the letters of ASCII only: to Unicode, the long s of "r\u017fet"
// is an S.
func capitals(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

func (m *model) reset() { m.mail, m.rcpts = false, 0 }

func (m *model) wanted(ok bool, otherwise int) bool {
	if !ok {
		m.say(otherwise)
	}
	return ok
}

func (m *model) data() bool {
	m.say(354)
	text, rest, end := strings.Cut("\r\n"+m.in, "\r\n.\r\n")
	if !end {
		return false
	}
	m.in = rest
	m.end(strings.ReplaceAll(text+"\r\n", "\r\n.", "\r\n")[2:])
	return true
}

func (m *model) end(text string) {
	m.reset()
	switch {
	case faulty(text, m.cfg):
		m.say(550)
	default:
		m.say(250)
		m.kept = append(m.kept, text)
	}
}

// faulty is what a message may not have.
func faulty(text string, cfg *Config) bool {
	if strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x00") {
		return true
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > cfg.MaxLine {
			return true
		}
	}
	return false
}

// chunks takes BDATs up to the last one.
func (m *model) chunks(arg string) bool {
	text := ""
	for {
		size, last, ok := m.size(arg, len(text))
		if !ok {
			return false
		}
		if len(m.in) < size {
			return false // the reply comes after the octets
		}
		octets := m.in[:size]
		m.in = m.in[size:]
		if !m.hello || m.rcpts == 0 {
			m.say(503)
			return true
		}
		text += octets
		// A CR at the end of a chunk may become CRLF in the next one.
		if last || faulty(strings.TrimSuffix(text, "\r"), m.cfg) {
			m.end(text)
			return true
		}
		m.say(250)
		if arg, ok = m.between(); !ok {
			return arg != ""
		}
	}
}

func (m *model) size(arg string, got int) (n int, last, ok bool) {
	word, rest, _ := strings.Cut(arg, " ")
	last = capitals(rest) == "LAST"
	if word == "" || strings.Trim(word, "0123456789") != "" || rest != "" && !last {
		m.say(501)
		return 0, false, false
	}
	n, err := strconv.Atoi(word)
	if err != nil || int64(n) > 2*m.cfg.MaxMessage-int64(got) {
		m.say(552)
		return 0, false, false
	}
	return n, last, true
}

// between takes the commands between two chunks, up to a BDAT, whose argument it
// returns. ok is false where the message was given up; then the text is not
// empty where the session goes on.
func (m *model) between() (arg string, ok bool) {
	for {
		before := m.in
		line, fault, end := m.line()
		if end {
			return "", false
		}
		if fault {
			m.say(500)
			continue
		}
		verb, arg, _ := strings.Cut(line, " ")
		switch capitals(verb) {
		case "BDAT":
			return strings.Trim(arg, " "), true
		case "RSET", "EHLO", "QUIT":
			m.in = before
			m.reset()
			return "goes on", false
		case "NOOP":
			m.say(250)
		case "MAIL", "RCPT", "DATA":
			m.say(503)
		default:
			m.say(500)
		}
	}
}
