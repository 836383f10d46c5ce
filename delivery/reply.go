package delivery

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Bounds of one reply. RFC 5321 section 4.5.3.1.5 has lines of 512 octets; a
// server that sends more than these is not talked to.
const (
	maxReplyLine  = 4096 // the size of the connection's read buffer
	maxReplyLines = 128
)

// nonsense is what a mail server never says. The connection is dropped: whatever
// comes next cannot be matched to a command.
type nonsense struct{ text string }

func (e *nonsense) Error() string { return e.text }

// answer is a reply with its lines as they came, for EHLO.
type answer struct {
	mail.Reply
	lines []string // without the code, at most maxReplyLines
}

// readAnswer reads one reply of one or more lines (RFC 5321 section 4.2). Memory
// is bounded here, time by the connection's watch.
func readAnswer(r *bufio.Reader) (answer, error) {
	var a answer
	for len(a.lines) < maxReplyLines {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return a, &nonsense{fmt.Sprintf("the server sent a reply line of more than %d bytes", maxReplyLine)}
		}
		if err != nil {
			return a, err
		}
		code, more, text, ok := cutReplyLine(line)
		if !ok || a.Code != 0 && code/100 != a.Code/100 {
			return a, &nonsense{fmt.Sprintf("the server sent nonsense: %q", printable(string(line), 80))}
		}
		a.Code = code
		a.lines = append(a.lines, text)
		if !more {
			a.Reply = makeReply(code, a.lines)
			return a, nil
		}
	}
	return a, &nonsense{fmt.Sprintf("the server sent a reply of more than %d lines", maxReplyLines)}
}

// cutReplyLine reads "250-text", "250 text" or "250".
func cutReplyLine(line []byte) (code int, more bool, text string, ok bool) {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, "", false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, "", false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, false, "", true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, "", false
	}
	return code, line[3] == '-', string(line[4:]), true
}

// makeReply joins the lines of a reply. The enhanced code stands on every line
// (RFC 2034 section 4); one that contradicts the code is left in the text.
func makeReply(code int, lines []string) mail.Reply {
	r := mail.Reply{Code: code}
	var b strings.Builder
	for i, line := range lines {
		if s, rest := mail.ParseStatus(line); s != (mail.Status{}) && int(s[0]) == code/100 {
			r.Status, line = s, rest
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		if b.Len() > 4*spool.MaxWordsBytes {
			break
		}
		b.WriteString(line)
	}
	r.Text = printable(b.String(), spool.MaxWordsBytes)
	return r
}

// printable makes text from outside fit for logs, rows and terminals: what cannot
// be printed becomes '?', at most limit bytes stay. Line breaks stay too.
func printable(s string, limit int) string {
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n <= 1 {
				r = '?'
			}
		}
		switch {
		case r == '\t':
			r = ' '
		case r != '\n' && !unicode.IsPrint(r):
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " \n")
}
