package peers

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// corpusDir has messages that nobody here wrote. It is beside the project and not
// in it.
const corpusDir = "../../../shared/corpus"

// sample is a message of the corpus as a client sends it: lines end in CRLF.
type sample struct {
	name string
	body []byte
}

func corpus(t *testing.T) []sample {
	t.Helper()
	var out []sample
	for _, folder := range []string{"ham", "spam", "mime-rspamd", "mime-enmime"} {
		err := filepath.WalkDir(filepath.Join(corpusDir, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			name, _ := filepath.Rel(corpusDir, path)
			out = append(out, sample{name, canonical(b)})
			return err
		})
		if os.IsNotExist(err) {
			t.Skipf("the corpus of messages is not here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// canonical ends every line in CRLF, the last one too, as a client does that
// reads its messages from Unix files.
func canonical(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	if !bytes.HasSuffix(b, []byte("\n")) {
		b = append(bytes.Clone(b), '\n')
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// refused are messages of the corpus that must not be taken, and the reply. The
// corpus of today has none: no NUL, no bare CR, no line of 10 KB.
var refused = map[string]string{}

// altered are the messages that a customer's server itself changes, and how. All
// of them lack what RFC 5322 wants; a sink shows that they reached it unchanged.
type altered map[string]func([]byte) []byte

// mboxes begin with the "From " line of a Unix mailbox.
var mboxes = []string{"ham/016", "ham/cjk/gb2312.2", "ham/cjk/iso-2022-jp.1", "ham/dkim/MultipleReceived_08", "ham/mailman_message.txt",
	"ham/mime2", "ham/mime4", "ham/mime8", "spam/002", "spam/005", "spam/007", "spam/009", "spam/016", "spam/dnsbl_domsonly.eml", "spam/unicode1"}

// altering makes the list of a server; every server ends a header with an empty
// line where a line stands that cannot belong to it.
func altering(more altered) altered {
	emptyLineFirst := func(b []byte) []byte { return append([]byte("\r\n"), b...) }
	all := altered{
		"spam/bsmtp": emptyLineFirst, // SMTP commands in front
		"mime-enmime/qp-utf8-header-no-break.raw": insertBefore("This is a multi-part message"),
	}
	for _, name := range mboxes {
		all[name] = emptyLineFirst
	}
	for name, change := range more {
		all[name] = change
	}
	return all
}

func insertBefore(text string) func([]byte) []byte {
	return func(b []byte) []byte {
		return bytes.Replace(b, []byte("\r\n"+text), []byte("\r\n\r\n"+text), 1)
	}
}

var (
	byPostfix = altering(altered{
		// "From : <admin@legitimate.com>"
		"mime-rspamd/phish_sender3.eml": func(b []byte) []byte { return bytes.Replace(b, []byte("\nFrom :"), []byte("\nFrom:"), 1) },
	})
	byExim = altering(altered{"ham/no_body": emptyLineLast, "mime-rspamd/rcvd7.eml": emptyLineLast}) // a header without a body
)

func emptyLineLast(b []byte) []byte { return append(bytes.Clone(b), "\r\n"...) }

func TestEveryMessageArrivesAtPostfixAsItWasSent(t *testing.T) {
	p := newPostfix(t)
	p.start()
	exchangeCorpus(t, map[string]string{"bdat": p.route("bdat"), "data": p.route("data")}, p.box, byPostfix)
}

func TestEveryMessageArrivesAtEximAsItWasSent(t *testing.T) {
	e := newExim(t)
	exchangeCorpus(t, map[string]string{"bdat": e.route("bdat"), "data": e.route("data")}, e.box, byExim)
}

func TestEveryMessageArrivesAtASinkAsItWasSent(t *testing.T) {
	bdat, data, slow := newSink(t), newSink(t, "PIPELINING", "8BITMIME", "SMTPUTF8"), newSink(t, "8BITMIME", "SMTPUTF8")
	box := map[string][]string{}
	open := func(local string) []string {
		for _, k := range []*sink{bdat, data, slow} {
			for len(k.got) > 0 {
				d := <-k.got
				to, _, _ := strings.Cut(strings.TrimPrefix(d.to[0], "TO:<"), "@")
				box[to] = append(box[to], string(d.body))
			}
		}
		return box[local]
	}
	exchangeCorpus(t, map[string]string{"bdat": bdat.addr, "data": data.addr, "slow": slow.addr}, open, nil)
}

// exchangeCorpus sends the corpus by DATA and by BDAT to a customer for each
// route and looks into the boxes of the server behind the routes. The local part
// of a recipient says which message, how it went in, and to whom: "12.data.bdat".
func exchangeCorpus(t *testing.T, routes map[string]string, box func(local string) []string, altered altered) {
	t.Helper()
	samples := corpus(t)
	s := serve(t, settings{"quota.default": "1GiB"})
	for name, route := range routes {
		s.customer(name, route)
	}
	for way, put := range map[string]func(*caller, letter) string{"data": (*caller).data, "bdat": (*caller).bdat} {
		c := call(t, s.smtp()).hello()
		for i, m := range samples {
			l := letter{from: "anna@pietersen.example", body: m.body}
			if bytes.ContainsFunc(m.body, func(r rune) bool { return r > 0x7f }) {
				l.params = " BODY=8BITMIME"
			}
			for name := range routes {
				l.to = append(l.to, fmt.Sprintf("%d.%s.%s@%s.example", i, way, name, name))
			}
			got := put(c, l)
			if want, bad := refused[m.name]; bad {
				if !strings.HasPrefix(got, want) {
					t.Errorf("%s by %s: %q, want %s", m.name, way, got, want)
				}
				continue
			}
			taken(t, got)
		}
	}
	for name := range routes {
		s.drained(name)
	}
	for i, m := range samples {
		if _, bad := refused[m.name]; bad {
			continue
		}
		want := m.body
		if change := altered[m.name]; change != nil {
			if want = change(m.body); bytes.Equal(want, m.body) {
				t.Fatalf("%s: nothing is altered", m.name)
			}
		}
		for name := range routes {
			for _, way := range []string{"data", "bdat"} {
				compare(t, m.name+" by "+way+" to "+name, fmt.Sprintf("%d.%s.%s", i, way, name), box, want)
			}
		}
	}
	t.Logf("%d messages, in by DATA and BDAT, out to %d customers", len(samples), len(routes))
}

// compare checks that one message is in a box, and that it is the one that was
// sent but for header fields in front.
func compare(t *testing.T, what, local string, box func(string) []string, want []byte) {
	t.Helper()
	var got []string
	until(t, what+" is in its box", func() bool { got = box(local); return len(got) > 0 })
	if len(got) != 1 {
		t.Errorf("%s came %d times", what, len(got))
	}
	added, ok := strings.CutSuffix(got[0], string(want))
	if !ok {
		t.Errorf("%s came changed:\n%s", what, difference(got[0], string(want)))
		return
	}
	if !strings.Contains(added, "\tby mx.provider.example with ESMTP;\r\n") && !strings.Contains(added, "\tby mx.provider.example with ESMTP\r\n\tfor <") {
		t.Errorf("%s lacks our Received field: %q", what, added)
	}
	for line := range strings.Lines(added) {
		name, _, _ := strings.Cut(line, ":")
		if line[0] != '\t' && line[0] != ' ' && !slices.Contains(addedFields, strings.ToLower(name)) {
			t.Errorf("%s has %q in front", what, line)
		}
	}
}

// addedFields may stand in front of a message that has passed two servers.
var addedFields = []string{"received", "return-path", "delivered-to", "x-original-to", "envelope-to", "delivery-date"}

// difference shows where a message that should end in want differs first.
func difference(got, want string) string {
	first, _, _ := strings.Cut(want, "\r\n")
	at := strings.Index(got, first)
	if at < 0 {
		return fmt.Sprintf("%q is not in it: %.300q", first, got)
	}
	got = got[at:]
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	from := max(0, n-60)
	return fmt.Sprintf("octet %d: got  %.120q\n          want %.120q", n, got[from:], want[from:])
}
