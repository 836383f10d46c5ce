package smtpd

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// The dialogues under testdata say what a client sends and what it hears:
//
//	line            is sent with CRLF, and one reply is read
//	> line          is sent with CRLF; nothing is read
//	"quoted\r\n"    is sent as it stands, and one reply is read
//	>"quoted"       is sent as it stands; nothing is read
//	*               reads one more reply
//
// After the dialogue stands what was stored.
func TestDialogues(t *testing.T) {
	datadriven.Walk(t, "testdata/dialogue", func(t *testing.T, path string) {
		w := newWorld(t)
		w.cfg.Postmaster = "jansen@provider.example"
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "config":
				for _, a := range d.CmdArgs {
					w.cfg.with(t, a.Key, strings.Join(a.Vals, ","))
				}
				return ""
			case "queue":
				return w.prepare(d)
			case "smtp":
				if w.srv == nil {
					w.serve()
				}
				return w.dialogue(d.Input)
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
		w.nothingLeft()
	})
}

// prepare sets what the node answers next.
func (w *world) prepare(d *datadriven.TestData) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = nil
	for _, a := range d.CmdArgs {
		err := error(mail.Fail(mail.ParseKind(a.Vals[0]), "disk 93% full, the watermark is 90%"))
		if a.Vals[0] == "plain" {
			err = errors.New("secret detail")
		}
		switch a.Key {
		case "fail":
			w.fail = err
		case "admit":
			w.refuse = err
		case "targets":
			w.answer = &spool.Enqueued{}
			for _, v := range a.Vals {
				r := map[string]spool.Refusal{"ok": spool.Accepted, "quota": spool.OverQuota, "gone": spool.NoAccount}[v]
				w.answer.Targets = append(w.answer.Targets, spool.TargetResult{Refusal: r, Usage: 19 << 20, Quota: 20 << 20})
				if r == spool.Accepted {
					w.answer.ID = mail.NewID(99, 0)
				}
			}
		}
	}
	return ""
}

func (w *world) dialogue(input string) string {
	before := len(w.stored())
	c := w.dial()
	defer c.Close()
	var out strings.Builder
	hear := func() {
		r := c.reply()
		if r == "" {
			r = "(closed)\n"
		}
		out.WriteString(strings.ReplaceAll(r, "\r\n", "\n"))
	}
	hear()
	for line := range strings.SplitSeq(input, "\n") {
		text, silent := strings.CutPrefix(line, ">")
		if line == "*" {
			hear()
			continue
		}
		if silent && !strings.HasPrefix(text, `"`) {
			text = strings.TrimPrefix(text, " ")
		}
		if strings.HasPrefix(text, `"`) {
			s, err := strconv.Unquote(text)
			check(w.t, err)
			text = s
		} else {
			text += "\r\n"
		}
		c.send(text)
		if !silent {
			hear()
		}
	}
	for _, m := range w.stored()[before:] {
		out.WriteString(m.transcript())
	}
	return out.String()
}

var stampDate = regexp.MustCompile(`(Received: from client(?s:.*?);\r\n\t).*\r\n`)

func (m stored) transcript() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stored %s from=<%s>", m.ID, m.Envelope.From)
	if m.Envelope.UTF8 {
		b.WriteString(" utf8")
	}
	if m.Envelope.EightBit {
		b.WriteString(" 8bit")
	}
	if m.Envelope.Return != 0 || m.Envelope.EnvID != "" {
		fmt.Fprintf(&b, " ret=%d envid=%q", m.Envelope.Return, m.Envelope.EnvID)
	}
	b.WriteByte('\n')
	for _, t := range m.Targets {
		fmt.Fprintf(&b, "  %s:", t.Queue)
		for _, r := range t.To {
			fmt.Fprintf(&b, " <%s>", r.Address)
			if r.Notify != 0 || r.Original != "" {
				fmt.Fprintf(&b, "(notify=%d %q)", r.Notify, r.Original)
			}
		}
		b.WriteByte('\n')
	}
	body := stampDate.ReplaceAllString(m.Body, "${1}DATE\r\n")
	for line := range strings.SplitAfterSeq(body, "\n") {
		if line != "" {
			fmt.Fprintf(&b, "  | %s\n", strings.ReplaceAll(strings.TrimSuffix(line, "\r\n"), "\t", "→"))
		}
	}
	return b.String()
}
