package bounce

import (
	"embed"
	"fmt"
	"strings"
	"text/template"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Locale is the language of a notification's text.
type Locale string

// The languages.
const (
	English Locale = "en"
	Dutch   Locale = "nl"
)

// Valid reports a language that there is a text for.
func (l Locale) Valid() bool { return l == English || l == Dutch }

//go:embed en.txt nl.txt
var texts embed.FS

// sentences are parsed once; templates are safe for use by many goroutines.
var sentences = map[Locale]*template.Template{English: parse(English), Dutch: parse(Dutch)}

func parse(l Locale) *template.Template {
	return template.Must(template.ParseFS(texts, string(l)+".txt"))
}

const letterWidth = 72

// letter is the part that people read.
type letter struct {
	t    *template.Template
	b    strings.Builder
	data sentenceData
}

// sentenceData is what the sentences may name.
type sentenceData struct {
	Host    string
	Arrived string
	ID      string
	Remote  string
	Many    bool
}

func newLetter(l Locale, o *spool.Owed, hostname string) *letter {
	return &letter{t: sentences[l], data: sentenceData{
		Host: hostname, ID: o.Key.ID.String(), Arrived: forPeople(o.Arrived)}}
}

func forPeople(t mail.Time) string {
	return t.Std().UTC().Format("2006-01-02 15:04 UTC")
}

// sentence renders one definition on one line.
func (l *letter) sentence(name string) (string, error) {
	var b strings.Builder
	if err := l.t.ExecuteTemplate(&b, name, l.data); err != nil {
		return "", fmt.Errorf("render sentence %q: %w", name, err)
	}
	return b.String(), nil
}

// say adds sentences as one paragraph.
func (l *letter) say(indent int, names ...string) error {
	var all []string
	for _, n := range names {
		s, err := l.sentence(n)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	l.paragraph(indent, strings.Join(all, " "))
	return nil
}

func (l *letter) paragraph(indent int, text string) {
	margin := strings.Repeat(" ", indent)
	for _, line := range wrap(text, letterWidth-indent, letterWidth-indent) {
		l.b.WriteString(margin + line + crlf)
	}
}

func (l *letter) gap() { l.b.WriteString(crlf) }

// write composes the whole text. returned names what is attached: "full",
// "headers" or nothing.
func (l *letter) write(o *spool.Owed, returned string) (string, error) {
	if err := l.say(0, "greeting"); err != nil {
		return "", err
	}
	for _, action := range reported {
		var to []spool.OwedRecipient
		for _, r := range o.To {
			if actionOf(r) == action {
				to = append(to, r)
			}
		}
		if len(to) == 0 {
			continue
		}
		l.data.Many = len(to) > 1
		l.gap()
		if err := l.say(0, "intro-"+actionName(action)); err != nil {
			return "", err
		}
		for _, r := range to {
			l.gap()
			if err := l.recipient(r); err != nil {
				return "", err
			}
		}
	}
	l.gap()
	closing := []string{"closing"}
	if returned != "" {
		closing = []string{"returned-" + returned, "closing"}
	}
	err := l.say(0, closing...)
	return l.b.String(), err
}

func (l *letter) recipient(r spool.OwedRecipient) error {
	l.paragraph(2, "<"+printable(string(r.Address), true)+">")
	cause := causeName(r)
	if err := l.say(4, "cause-"+cause); err != nil {
		return err
	}
	if words := printable(r.Reply.String(), true); words != "" {
		l.data.Remote = printable(r.Remote, true)
		who := "words-remote"
		if l.data.Remote == "" {
			who = "words-local"
		}
		if err := l.say(4, who); err != nil {
			return err
		}
		l.paragraph(8, words)
	}
	return l.say(4, "do-"+advice(r))
}

// causeName is the end of a sentence's name.
func causeName(r spool.OwedRecipient) string {
	switch actionOf(r) {
	case spool.NotifyDelayed:
		return "delayed"
	case spool.NotifyRelayed:
		return "relayed"
	}
	switch r.Cause {
	case spool.FailRemote:
		return "remote"
	case spool.FailQuota:
		return "quota"
	case spool.FailExpired:
		return "expired"
	case spool.FailOperator:
		return "operator"
	case spool.FailAccount:
		return "account"
	}
	return "unknown"
}

// advice is the end of the name of the sentence that says what to do. For a
// refusal by the other side its enhanced status code (RFC 3463) tells more than
// that it refused.
func advice(r spool.OwedRecipient) string {
	cause := causeName(r)
	if cause == "unknown" {
		return "remote"
	}
	if cause != "remote" {
		return cause
	}
	switch s := r.Reply.Status; {
	case s[1] == 6 && s[2] == 7 || s[1] == 6 && s[2] == 9: // RFC 6531 section 3.5
		return "utf8"
	case s[1] == 1 && s[2] <= 6:
		return "address"
	case s[1] == 2 && s[2] == 2:
		return "full"
	case s[1] == 2 && s[2] == 3, s[1] == 3 && s[2] == 4:
		return "size"
	case s[1] == 7:
		return "policy"
	}
	return "remote"
}

// wrap breaks text at spaces into lines of at most width bytes. A longer word has
// a line of its own, and is cut, at a character, where it is longer than cutAt.
func wrap(text string, width, cutAt int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for len(word) > cutAt {
			cut := cutAt
			for cut > 1 && word[cut]&0xc0 == 0x80 {
				cut--
			}
			if line != "" {
				lines, line = append(lines, line), ""
			}
			lines, word = append(lines, word[:cut]), word[cut:]
		}
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
