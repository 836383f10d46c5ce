package bounce

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

var update = flag.Bool("update", false, "write the golden notifications instead of comparing them")

var noon = mail.At(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

const original = "Received: from pc.example.org by mx.example.net; Mon, 23 Nov 2026 10:00:00 +0000\r\n" +
	"From: Els <els@example.org>\r\nTo: jansen@klant.example\r\nSubject: Offerte\r\n" +
	"Message-ID: <1@pc.example.org>\r\n\r\nGoedemorgen,\r\n\r\n-- \r\nEls\r\n"

func options() Options {
	return Options{Hostname: "mx.example.net", Locale: English, Now: noon, Boundary: "dsn4f1x", MaxReturn: 50 << 10}
}

// owed is one failed recipient of Els's message.
func owed(change ...func(*spool.Owed)) spool.Owed {
	o := spool.Owed{
		Key:     spool.OwedKey{ID: mail.NewID(7, 1), Queue: "account/jansen", Seq: 3},
		From:    "els@example.org",
		EnvID:   "QQ314159",
		Arrived: noon.Add(-2 * time.Hour),
		Since:   noon,
		Size:    int64(len(original)),
		Body:    mail.NewID(7, 1),
		To: []spool.OwedRecipient{{
			Address: "jansen@klant.example", Original: "rfc822;Jansen@klant.example",
			Action: spool.NotifyFailed, Cause: spool.FailRemote,
			Reply:  mail.Reply{Code: 550, Status: mail.Status{5, 1, 1}, Text: "no such user here"},
			Remote: "mail.klant.example", Last: noon.Add(-time.Minute),
		}},
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func cause(action spool.NotifyAction, c spool.FailCause, r mail.Reply, remote string) func(*spool.Owed) {
	return func(o *spool.Owed) {
		t := &o.To[0]
		t.Action, t.Cause, t.Reply, t.Remote = action, c, r, remote
	}
}

func reply(code int, s mail.Status, text string) mail.Reply {
	return mail.Reply{Code: code, Status: s, Text: text}
}

func TestEveryCauseInEveryLanguageReadsAsRecorded(t *testing.T) {
	again := owed().To[0]
	again.Address, again.Original, again.Action, again.Cause = "piet@klant.example", "", spool.NotifyDelayed, spool.FailRemote
	again.Reply = reply(451, mail.Status{4, 3, 2}, "come back later")
	cases := map[string]spool.Owed{
		"remote":   owed(),
		"policy":   owed(cause(spool.NotifyFailed, spool.FailRemote, reply(554, mail.Status{5, 7, 1}, "we do not like you\nsee https://example.com/why"), "mail.klant.example")),
		"quota":    owed(cause(spool.NotifyFailed, spool.FailQuota, reply(552, mail.Status{5, 2, 2}, "the mailbox is full"), "")),
		"expired":  owed(cause(spool.NotifyFailed, spool.FailExpired, reply(0, mail.Status{}, "connect to mail.klant.example: connection refused"), "")),
		"operator": owed(cause(spool.NotifyFailed, spool.FailOperator, mail.Reply{}, "")),
		"account":  owed(cause(spool.NotifyFailed, spool.FailAccount, reply(550, mail.Status{5, 1, 1}, "there is no such account any more"), "")),
		"delayed":  owed(cause(spool.NotifyDelayed, spool.FailRemote, reply(450, mail.Status{4, 2, 0}, "greylisted"), "mail.klant.example")),
		"relayed":  owed(cause(spool.NotifyRelayed, spool.FailRelayed, reply(250, mail.Status{2, 0, 0}, "ok"), "mail.klant.example")),
		"full":     owed(func(o *spool.Owed) { o.Return = mail.ReturnFull }),
		"mixed":    owed(func(o *spool.Owed) { o.To = append(o.To, again, owed().To[0]) }),
		"utf8": owed(func(o *spool.Owed) {
			o.UTF8, o.From, o.To[0].Address, o.To[0].Original = true, "élise@exemple.example", "józef@klant.example", "utf-8;józef@klant.example"
		}),
	}
	for name, o := range cases {
		for _, l := range []Locale{English, Dutch} {
			t.Run(name+"."+string(l), func(t *testing.T) {
				opt := options()
				opt.Locale = l
				n, err := Compose(o, strings.NewReader(original), opt)
				if err != nil {
					t.Fatal(err)
				}
				mustBeWellFormed(t, &o, n)
				golden(t, name+"."+string(l)+".eml", n.Body)
			})
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	got = bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")) // for reviews; mustBeWellFormed looks at line ends
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is different (write it anew with -update and look at the difference):\n%s", file, got)
	}
}

func TestRETDecidesWhatIsReturned(t *testing.T) {
	long := strings.Repeat("x", 999)
	for _, c := range []struct {
		name     string
		change   func(*spool.Owed)
		original string
		max      int64
		want     string // media type of the third part
	}{
		{"not asked", func(*spool.Owed) {}, original, 1 << 20, "text/rfc822-headers"},
		{"headers", func(o *spool.Owed) { o.Return = mail.ReturnHeaders }, original, 1 << 20, "text/rfc822-headers"},
		{"full", func(o *spool.Owed) { o.Return = mail.ReturnFull }, original, 1 << 20, "message/rfc822"},
		{"exactly as large as allowed", func(o *spool.Owed) { o.Return = mail.ReturnFull }, original, int64(len(original)), "message/rfc822"},
		{"a byte too large", func(o *spool.Owed) { o.Return = mail.ReturnFull }, original, int64(len(original)) - 1, "text/rfc822-headers"},
		{"larger than its row says", func(o *spool.Owed) { o.Return, o.Size = mail.ReturnFull, 1 }, original, 100, "text/rfc822-headers"},
		{"a full account", func(o *spool.Owed) { o.Return, o.To[0].Cause = mail.ReturnFull, spool.FailQuota }, original, 1 << 20, "text/rfc822-headers"},
		{"a delay", func(o *spool.Owed) { o.Return, o.To[0].Action = mail.ReturnFull, spool.NotifyDelayed }, original, 1 << 20, "text/rfc822-headers"},
		{"an over-long line", func(o *spool.Owed) { o.Return = mail.ReturnFull }, "Subject: a\r\n\r\n" + long + "\r\n", 1 << 20, "text/rfc822-headers"},
		{"a bare CR", func(o *spool.Owed) { o.Return = mail.ReturnFull }, "Subject: a\r\n\r\na\rb\r\n", 1 << 20, "text/rfc822-headers"},
		{"international headers", func(o *spool.Owed) { o.UTF8 = true }, "Subject: été\r\n\r\n", 1 << 20, "message/global-headers"},
		{"an international message", func(o *spool.Owed) { o.UTF8, o.Return = true, mail.ReturnFull }, "Subject: été\r\n\r\nx\r\n", 1 << 20, "message/global"},
		{"illegal 8-bit headers", func(*spool.Owed) {}, "Subject: \xe9t\xe9\r\n\r\n", 1 << 20, "text/rfc822-headers"},
		{"an 8-bit body", func(o *spool.Owed) { o.Return = mail.ReturnFull }, "Subject: a\r\n\r\n\xe9t\xe9\r\n", 1 << 20, "message/rfc822"},
		{"nothing", func(*spool.Owed) {}, "", 1 << 20, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := owed(c.change)
			opt := options()
			opt.MaxReturn = c.max
			n, err := Compose(o, strings.NewReader(c.original), opt)
			if err != nil {
				t.Fatal(err)
			}
			parts := mustBeWellFormed(t, &o, n)
			got := ""
			if len(parts) == 3 {
				got = parts[2].kind
			}
			if got != c.want {
				t.Errorf("returned %q, want %q", got, c.want)
			}
			if got == "message/rfc822" && string(parts[2].content) != c.original {
				t.Errorf("the message came back changed: %q", parts[2].content)
			}
		})
	}
}

func TestHeadersAreCutAtAWholeLine(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "X-%04d: %s\r\n", i, strings.Repeat("y", 60))
	}
	o := owed()
	n, err := Compose(o, strings.NewReader(b.String()), options())
	if err != nil {
		t.Fatal(err)
	}
	back := mustBeWellFormed(t, &o, n)[2].content
	if len(back) > maxHeaderBytes || len(back) < maxHeaderBytes-100 || !strings.HasSuffix(string(back), "y\r\n") {
		t.Errorf("%d bytes came back, the end is %q", len(back), back[len(back)-80:])
	}
}

func TestStatusFitsTheAction(t *testing.T) {
	for _, c := range []struct {
		action spool.NotifyAction
		cause  spool.FailCause
		said   mail.Status
		want   string
	}{
		{spool.NotifyFailed, spool.FailRemote, mail.Status{5, 1, 1}, "5.1.1"},
		{spool.NotifyFailed, spool.FailRemote, mail.Status{}, "5.0.0"},
		{spool.NotifyFailed, spool.FailRemote, mail.Status{2, 0, 0}, "5.0.0"},
		{spool.NotifyFailed, spool.FailQuota, mail.Status{}, "5.2.2"},
		{spool.NotifyFailed, spool.FailExpired, mail.Status{4, 4, 1}, "4.4.1"},
		{spool.NotifyFailed, spool.FailExpired, mail.Status{}, "4.4.7"},
		{spool.NotifyFailed, spool.FailRemote, mail.Status{4, 4, 1}, "5.0.0"},
		{spool.NotifyFailed, spool.FailOperator, mail.Status{}, "5.3.0"},
		{spool.NotifyFailed, spool.FailAccount, mail.Status{}, "5.2.1"},
		{spool.NotifyDelayed, spool.FailRemote, mail.Status{4, 2, 0}, "4.2.0"},
		{spool.NotifyDelayed, spool.FailRemote, mail.Status{5, 2, 0}, "4.4.7"},
		{spool.NotifyRelayed, spool.FailRelayed, mail.Status{2, 0, 0}, "2.1.9"},
	} {
		got := statusOf(spool.OwedRecipient{Action: c.action, Cause: c.cause, Reply: mail.Reply{Status: c.said}})
		if got.String() != c.want {
			t.Errorf("action %d cause %d said %s: %s, want %s", c.action, c.cause, c.said, got, c.want)
		}
	}
}

func TestWhatCannotBeReportedIsAnError(t *testing.T) {
	broken := errors.New("disk on fire")
	for name, c := range map[string]struct {
		o   spool.Owed
		opt func(*Options)
	}{
		"null sender":   {owed(func(o *spool.Owed) { o.From = mail.Null }), nil},
		"no address":    {owed(func(o *spool.Owed) { o.From = "a\r\nBcc: x@y" }), nil},
		"no recipient":  {owed(func(o *spool.Owed) { o.To = nil }), nil},
		"no host name":  {owed(), func(o *Options) { o.Hostname = "" }},
		"bad boundary":  {owed(), func(o *Options) { o.Boundary = "a b" }},
		"bad from line": {owed(), func(o *Options) { o.From = "x\r\ny" }},
	} {
		opt := options()
		if c.opt != nil {
			c.opt(&opt)
		}
		if n, err := Compose(c.o, nil, opt); err == nil {
			t.Errorf("%s: no error, but\n%s", name, n.Body)
		}
	}
	_, err := Compose(owed(), io.MultiReader(strings.NewReader("A: b\r\n"), failing{broken}), options())
	var unread *OriginalError
	if !errors.As(err, &unread) || !errors.Is(err, broken) {
		t.Errorf("a failing disk gives %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzCompose(f *testing.F) {
	f.Add("550 no\r\nSubject: x", "a@b.example", "e@f.example", "rfc822;x", "id", "host", original, uint8(0xff), 550)
	f.Add("\xff\u2028\x00--dsn4f1x\r\n", "\"a b\"@b", "é@f", "utf-8;é", "\r\n\r\n", "\t", "--dsn4f1x--\r\n\r\n--dsn4f1x", uint8(7), 0)
	f.Add(strings.Repeat("w", 3000), strings.Repeat("é", 600), "e@f", strings.Repeat("a", 999)+";"+strings.Repeat("\n", 999), "", "", "A: b\r\n\tc\r\n\r\n", uint8(64), 0)
	f.Fuzz(func(t *testing.T, words, addr, from, orcpt, envid, remote, orig string, bits uint8, code int) {
		o := owed(func(o *spool.Owed) {
			o.From, o.EnvID, o.UTF8 = mail.Address(from), envid, bits&1 != 0
			o.Return, o.Size = mail.Return(bits>>1&3), int64(len(orig))
			r := &o.To[0]
			r.Address, r.Original, r.Remote = mail.Address(addr), orcpt, remote
			r.Action, r.Cause = spool.NotifyAction(bits>>3&3), spool.FailCause(bits>>5)
			r.Reply = reply(code, mail.Status{bits >> 5, bits >> 4, bits}, words)
			o.To = append(o.To, *r)
		})
		opt := options()
		if bits&4 != 0 {
			opt.Locale = Dutch
		}
		n, err := Compose(o, strings.NewReader(orig), opt)
		if err != nil {
			if _, bad := mail.ParseAddress(from); bad == nil {
				t.Fatalf("a usable sender %q gives %v", from, err)
			}
			return
		}
		mustBeWellFormed(t, &o, n)
	})
}

type readPart struct {
	kind    string
	content []byte
}

var (
	topFields     = []string{"From", "To", "Subject", "Date", "Message-Id", "Auto-Submitted", "Mime-Version", "Content-Type", "Content-Transfer-Encoding"}
	messageFields = []string{"Reporting-Mta", "Original-Envelope-Id", "Arrival-Date", "X-Bsmtpd-Queue-Id"}
	rcptFields    = []string{"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-Mta", "Diagnostic-Code", "Last-Attempt-Date"}
)

// mustBeWellFormed reads a notification as a stranger would.
func mustBeWellFormed(t *testing.T, o *spool.Owed, n Notice) []readPart {
	t.Helper()
	if !isClean(n.Body) {
		t.Fatalf("a line is too long, or not ended by CRLF: %q", n.Body)
	}
	head, _, _ := bytes.Cut(n.Body, []byte("\r\n\r\n"))
	if n.UTF8 != !isASCII(head) || n.EightBit != !isASCII(n.Body[len(head):]) {
		t.Errorf("the envelope would say UTF8 %v, 8bit %v", n.UTF8, n.EightBit)
	}
	m, err := netmail.ReadMessage(bytes.NewReader(n.Body))
	if err != nil {
		t.Fatalf("%v in %q", err, n.Body)
	}
	only(t, textproto.MIMEHeader(m.Header), topFields, []string{"From", "To", "Subject", "Date", "Message-Id", "Auto-Submitted"})
	if got := m.Header.Get("To"); got != "<"+string(o.From)+">" {
		t.Errorf("To is %q", got)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("content type %q %v %v", kind, params, err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	var parts []readPart
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("part %d: %v in %q", len(parts)+1, err, n.Body)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		if enc := p.Header.Get("Content-Transfer-Encoding"); (enc == "7bit" || enc == "quoted-printable") && !isASCII(b) {
			t.Errorf("8-bit bytes in part %d, encoding %q", len(parts)+1, enc)
		}
		parts = append(parts, readPart{kind, b})
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0].kind != "text/plain" ||
		!strings.HasSuffix(parts[1].kind, "delivery-status") {
		t.Fatalf("%d parts: %q", len(parts), n.Body)
	}
	statusMustBeWellFormed(t, o, parts[1].content)
	return parts
}

func statusMustBeWellFormed(t *testing.T, o *spool.Owed, b []byte) {
	t.Helper()
	if !utf8.Valid(b) {
		t.Errorf("the status part is not UTF-8: %q", b)
	}
	groups := 0
	for group := range bytes.SplitSeq(b, []byte("\r\n\r\n")) {
		h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(bytes.Clone(group), "\r\n\r\n"...)))).ReadMIMEHeader()
		if err != nil {
			t.Fatalf("%v in %q", err, b)
		}
		if groups == 0 {
			only(t, h, messageFields, []string{"Reporting-Mta"})
		} else {
			only(t, h, rcptFields, []string{"Final-Recipient", "Action", "Status"})
			r := o.To[groups-1]
			if _, err := mail.ParseAddress(string(r.Address)); err == nil && !strings.ContainsAny(string(r.Address), "\" ") &&
				printable(string(r.Address), true) == string(r.Address) && !strings.HasSuffix(h.Get("Final-Recipient"), ";"+string(r.Address)) {
				t.Errorf("final recipient %q is %q", r.Address, h.Get("Final-Recipient"))
			}
		}
		groups++
	}
	if groups != 1+len(o.To) {
		t.Errorf("%d groups for %d recipients: %q", groups, len(o.To), b)
	}
}

func only(t *testing.T, h textproto.MIMEHeader, allowed, needed []string) {
	t.Helper()
	for k, v := range h {
		if !slices.Contains(allowed, k) || len(v) != 1 {
			t.Errorf("field %s: %q", k, v)
		}
	}
	for _, k := range needed {
		if h.Get(k) == "" {
			t.Errorf("no field %s in %q", k, h)
		}
	}
}
