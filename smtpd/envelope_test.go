package smtpd

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"pgregory.net/rapid"

	"bsmtpd/mail"
)

func TestCutPath(t *testing.T) {
	for in, want := range map[string]string{
		"<a@b>":         "a@b",
		" <a@b> SIZE=1": "a@b",
		"<>":            "",
		"<@x,@y:a@b>":   "a@b",
		`<"a>b"@c> X=Y`: `"a>b"@c`,
		`<"a\"> b"@c>`:  `"a\"> b"@c`,
		"a@b SIZE=1":    "a@b",
		`<"a@b"@c>`:     `"a@b"@c`,
	} {
		if path, err := cutPath(in); err != nil || path != want {
			t.Errorf("%q: %q %v", in, path, err)
		}
	}
	for _, in := range []string{"", " ", "<a@b", "<a@b>x", "a>b", "<a<b@c>", "<@x>", `<"a@b>`} {
		if path, err := cutPath(in); err == nil {
			t.Errorf("%q gave %q", in, path)
		}
	}
}

// What MAIL and RCPT understand survives being said again.
func TestAddressesSurviveBeingSentOn(t *testing.T) {
	part := rapid.StringOfN(rapid.RuneFrom([]rune(`ab.@"\ >é-+`)), 1, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		in := "<" + part.Draw(t, "local") + "@" + part.Draw(t, "domain") + ".example>"
		path, err := cutPath(in)
		if err != nil {
			return
		}
		a, err := parseAddress(path, true)
		if err != nil {
			return
		}
		if !isASCII(string(a.Domain())) {
			t.Fatalf("%q has the domain %q", in, a.Domain())
		}
		path, err = cutPath("<" + string(a) + "> SIZE=1")
		if err != nil {
			t.Fatalf("%q: sent on as %q: %v", in, a, err)
		}
		if b, err := parseAddress(path, true); err != nil || b != a {
			t.Fatalf("%q became %q: %v", a, b, err)
		}
	})
}

// What stands in an ORCPT is written into notifications.
func TestOriginalRecipientIsOneLine(t *testing.T) {
	for _, bad := range []string{"a\x01b", "a\x7fb", "a\u0085b", strings.Repeat("a", 501)} {
		if got, r := originalOf(&smtp.RcptOptions{OriginalRecipientType: "UTF-8", OriginalRecipient: bad}, ""); r == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
	if got, r := originalOf(&smtp.RcptOptions{OriginalRecipientType: "UTF-8", OriginalRecipient: "k\u00e4se@x"}, ""); r != nil || got != "utf-8;k\u00e4se@x" {
		t.Errorf("got %q, %v", got, r)
	}
}

func TestNotifyOfAnAddressGivenTwice(t *testing.T) {
	for _, tt := range []struct{ a, b, want mail.Notify }{
		{0, 0, 0},
		{mail.NotifyNever, mail.NotifyNever, mail.NotifyNever},
		{mail.NotifyNever, 0, mail.NotifyFailure | mail.NotifyDelay},
		{mail.NotifyNever, mail.NotifySuccess, mail.NotifySuccess},
		{0, mail.NotifySuccess, mail.NotifySuccess | mail.NotifyFailure | mail.NotifyDelay},
	} {
		if got := unionNotify(tt.a, tt.b); got != tt.want {
			t.Errorf("%d and %d: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("<a@b.example> SIZE=10 BODY=8BITMIME")
	f.Add(`<"a b"@b\u00fccher.example> NOTIFY=NEVER`)
	f.Fuzz(func(t *testing.T, in string) {
		path, err := cutPath(in)
		if err != nil {
			return
		}
		if a, err := parseAddress(path, true); err == nil && strings.ContainsAny(string(a), "\r\n\x00") {
			t.Errorf("%q gave %q", in, a)
		}
	})
}

// RFC 3461 section 4.2 has addresses of any type, of which go-smtp knows two.
func TestAnOriginalRecipientMayBeOfAnyType(t *testing.T) {
	w := newWorld(t).serve()
	c := w.hello()
	defer c.Close()
	c.say("MAIL FROM:<>", "250")
	for _, tt := range []struct{ rcpt, reply, want string }{
		{"<a@customer.example> ORCPT=X400;/c+3Dgb/ NOTIFY=DELAY", "250", "x400;/c=gb/"},
		{"<b@customer.example>", "250", ""},
		{"<c@customer.example> notify=delay orcpt=rfc822;c+40x", "250", "rfc822;c@x"},
		{"<d@customer.example> ORCPT=x400;d ORCPT=utf-8;d", "250", "utf-8;d"},
		{"<e@customer.example> ORCPT=utf-8;e ORCPT=x-local;e", "250", "x-local;e"},
		{`<"f> ORCPT=x400;f"@customer.example>`, "250", ""},
		{"<g@customer.example> ORCPT=x400;", "501", ""},
		{"<g@customer.example> ORCPT=;g", "501", ""},
		{"<g@customer.example> ORCPT=x_y;g", "501", ""},
		{"<g@customer.example> ORCPT=x400;+0D+0A", "501", ""},
		{"<g@customer.example> ORCPT=x400;" + strings.Repeat("g", 497), "501", ""},
	} {
		c.say("RCPT TO:"+tt.rcpt, tt.reply)
		if tt.reply != "250" {
			continue
		}
		c.say("DATA", "354")
		c.say(".", "250")
		c.say("MAIL FROM:<>", "250")
		all := w.stored()
		to := all[len(all)-1].Targets[0].To[0]
		if to.Original != tt.want || (to.Notify == mail.NotifyDelay) != strings.Contains(strings.ToUpper(tt.rcpt), "NOTIFY=DELAY") {
			t.Errorf("%s: stored as %+v", tt.rcpt, to)
		}
	}
}
