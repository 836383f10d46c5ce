package smtpd

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bsmtpd/mail"
)

func TestCutPath(t *testing.T) {
	for _, tt := range []struct{ in, path, params string }{
		{"<a@b>", "a@b", ""},
		{" <a@b> SIZE=1", "a@b", " SIZE=1"},
		{"<>", "", ""},
		{"<@x,@y:a@b>", "a@b", ""},
		{`<"a>b"@c> X=Y`, `"a>b"@c`, " X=Y"},
		{`<"a\"> b"@c>`, `"a\"> b"@c`, ""},
		{"a@b SIZE=1", "a@b", "SIZE=1"},
	} {
		path, params, err := cutPath(tt.in)
		if err != nil || path != tt.path || params != tt.params {
			t.Errorf("%q: %q %q %v", tt.in, path, params, err)
		}
	}
	for _, in := range []string{"", " ", "<a@b", "<a@b>x", "a>b", "<a<b@c>", "<@x>", `<"a@b>`} {
		if path, _, err := cutPath(in); err == nil {
			t.Errorf("%q gave %q", in, path)
		}
	}
}

// What MAIL and RCPT understand survives being said again.
func TestAddressesSurviveBeingSentOn(t *testing.T) {
	part := rapid.StringOfN(rapid.RuneFrom([]rune(`ab.@"\ >é-+`)), 1, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		in := "<" + part.Draw(t, "local") + "@" + part.Draw(t, "domain") + ".example>"
		path, _, err := cutPath(in)
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
		path, params, err := cutPath("<" + string(a) + "> SIZE=1")
		if err != nil || params != " SIZE=1" {
			t.Fatalf("%q: sent on as %q: %v", in, a, err)
		}
		if b, err := parseAddress(path, true); err != nil || b != a {
			t.Fatalf("%q became %q: %v", a, b, err)
		}
	})
}

func TestXtext(t *testing.T) {
	for in, want := range map[string]string{"abc": "abc", "a+2Bb": "a+b", "+3D+20": "= "} {
		if got, err := decodeXtext(in); err != nil || got != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"+", "+4", "+GG", "a+0D+0A", "é", "+E9"} {
		if got, err := decodeXtext(in); err == nil {
			t.Errorf("%q gave %q", in, got)
		}
	}
	for _, in := range []string{`\x{`, `\x{}`, `\x{41`, `\x{D800}`, `\x{0A}`, `\x{110000}`, "a b", `\`} {
		if got, err := decodeUTF8Xtext(in); err == nil {
			t.Errorf("%q gave %q", in, got)
		}
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

func FuzzEnvelope(f *testing.F) {
	f.Add("<a@b.example> SIZE=10 BODY=8BITMIME")
	f.Add(`<"a b"@bücher.example> NOTIFY=NEVER ORCPT=utf-8;\x{E4}@b`)
	f.Fuzz(func(t *testing.T, in string) {
		path, params, err := cutPath(in)
		if err != nil {
			return
		}
		if a, err := parseAddress(path, true); err == nil && strings.ContainsAny(string(a), "\r\n\x00") {
			t.Errorf("%q gave %q", in, a)
		}
		parseMailParams(params)
		var to mail.Recipient
		if parseRcptParams(params, &to) == nil && strings.ContainsAny(to.Original, "\r\n\x00") {
			t.Errorf("%q gave ORCPT %q", in, to.Original)
		}
	})
}
