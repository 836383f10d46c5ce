package mail

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Most are from RFC 5321 section 4.1.2 and 4.1.3, RFC 5322 appendix A and RFC 6531.
func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 64)
	label := strings.Repeat("d", 63)
	for _, c := range []struct{ in, want string }{ // want empty: refused
		{"Smith@bar.com", "Smith@bar.com"},
		{"Jones@XYZ.COM", "Jones@xyz.com"},
		{"userc@d.bar.org.", "userc@d.bar.org"},
		{"user+tag@example.com", "user+tag@example.com"},
		{"!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"},
		{"a.b.c@example.com", "a.b.c@example.com"},
		{`"Joe\,Smith"@example.com`, `"Joe\,Smith"@example.com`},
		{`"a b"@example.com`, `"a b"@example.com`},
		{`"a@b"@example.com`, `"a@b"@example.com`},
		{`"a\"b"@example.com`, `"a\"b"@example.com`},
		{`""@example.com`, `""@example.com`},
		{"jdoe@[192.0.2.1]", "jdoe@[192.0.2.1]"},
		{"jdoe@[IPv6:2001:DB8::1]", "jdoe@[ipv6:2001:db8::1]"},
		{"bücher@example.com", "bücher@example.com"},
		{"info@bücher.example", "info@bücher.example"},
		{"info@xn--bcher-kva.example", "info@xn--bcher-kva.example"},
		{"a@_dmarc.example", "a@_dmarc.example"},
		{"postmaster@localhost", "postmaster@localhost"},
		{long + "@example.com", long + "@example.com"},
		{"a@" + label + ".example", "a@" + label + ".example"},

		{"", ""}, {"postmaster", ""}, {"@example.com", ""}, {"a@", ""}, {"a@.", ""}, {"a@..", ""}, {"a@example..com", ""},
		{".a@example.com", ""}, {"a.@example.com", ""}, {"a..b@example.com", ""}, {"a b@example.com", ""},
		{"a@b@example.com", ""}, {"a@exa mple.com", ""}, {"a@-example.com", ""}, {"a@example-.com", ""}, {"a@exam_ple!.com", ""},
		{`"a@example.com`, ""}, {`a"b"@example.com`, ""}, {`"a"b"@example.com`, ""}, {`"a\"@example.com`, ""}, {"\"a\x00\"@example.com", ""},
		{"\"a\r\n\"@example.com", ""}, {"a\r\nDATA@example.com", ""}, {"a@example.com\r\n", ""}, {"<a@example.com>", ""}, {"a@example.com>", ""},
		{"a,b@example.com", ""}, {"a@b\x00.com", ""}, {"a\xff@example.com", ""}, {"a@exam\xffple.com", ""},
		{"a@[192.0.2.1", ""}, {"a@[", ""}, {"a@[1] [2]", ""}, {"a@[\xff]", ""}, {"a@[>]", ""},
		{"a@[1.2.3.4\x0b]", ""}, {"a@[\x01]", ""}, {"a@[\x7f]", ""}, {"a@[a[b]", ""}, {"a@[a]b]", ""}, {`a@[a\b]`, ""}, {"a@[]", ""},
		{long + "a@example.com", ""}, {"a@" + label + "d.example", ""}, {"a@" + strings.Repeat("d.", 130) + "example", ""},
		{"a@" + strings.Repeat(strings.Repeat("\u023a", 21)+".", 5) + "x", ""}, // longer in lower case
	} {
		got, err := ParseAddress(c.in)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q was taken as %q", c.in, got)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
		if i := strings.LastIndexByte(c.want, '@'); got.Local() != c.want[:i] || string(got.Domain()) != c.want[i+1:] {
			t.Errorf("%q has the parts %q and %q", got, got.Local(), got.Domain())
		}
	}
	if !Null.IsNull() || Null.Domain() != "" || Null.Local() != "" || Null.NeedsUTF8() {
		t.Error("the null reverse-path has something in it")
	}
	if !Address("bücher@example.com").NeedsUTF8() || Address("a@example.com").NeedsUTF8() {
		t.Error("which address needs SMTPUTF8 is wrong")
	}
}

func TestParseLogin(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"jansen", "jansen"}, {"Jansen", "jansen"}, {"j.de-vries_2+x", "j.de-vries_2+x"}, {"0800", "0800"}, {"_x", "_x"},
		{strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{"", ""}, {".a", ""}, {"-a", ""}, {"+a", ""}, {"a.", ""}, {"a..b", ""}, {"a b", ""}, {"a/b", ""}, {"../etc/passwd", ""}, {"a@b", ""},
		{"a\x00", ""}, {"jän", ""}, {"a\xff", ""}, {strings.Repeat("a", 65), ""},
		{"\u212aees", ""}, // the Kelvin sign's lower case is k: another login's name
	} {
		got, err := ParseLogin(c.in)
		if (err == nil) != (c.want != "") || string(got) != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"Smith@bar.com", `"a\"b"@x`, "a@[IPv6:2001:DB8::1]", "bücher@Bücher.example.", "a@\u212a.example", "a@\u023a", `"@"@x`, "a@[]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := ParseAddress(string(a)); err != nil || again != a {
			t.Fatalf("%q is read as %q, and that as %q, %v", s, a, again, err)
		}
		if len(a) > maxAddressBytes || !utf8.ValidString(string(a)) || strings.ContainsAny(string(a), "\r\n\x00") {
			t.Fatalf("%q was taken", a)
		}
		if a.IsNull() || a.Local() == "" || a.Domain() == "" || a.Local()+"@"+string(a.Domain()) != string(a) {
			t.Fatalf("%q has the parts %q and %q", a, a.Local(), a.Domain())
		}
	})
}

func TestNoDomainGrowsBeyondItsBound(t *testing.T) {
	if d, err := ParseDomain(strings.Repeat(strings.Repeat("\u023a", 21)+".", 5)); err == nil {
		t.Errorf("a domain of %d bytes was taken", len(d))
	}
}

func FuzzParseDomain(f *testing.F) {
	for _, s := range []string{"Example.COM.", "bücher.example", "\u212a.example", "_x.y", "a-b", "-a", ".", "\u023a" + strings.Repeat("a", 61)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDomain(s)
		if err != nil {
			return
		}
		if again, err := ParseDomain(string(d)); err != nil || again != d || len(d) > maxDomainBytes {
			t.Fatalf("%q is read as %q, and that as %q, %v", s, d, again, err)
		}
	})
}

func FuzzParseLogin(f *testing.F) {
	for _, s := range []string{"Jansen", "a.b", "..", "\u212a", "\u0130", "a\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLogin(s)
		if err != nil {
			return
		}
		if again, err := ParseLogin(string(l)); err != nil || again != l {
			t.Fatalf("%q is read as %q, and that as %q, %v", s, l, again, err)
		}
		if !strings.EqualFold(s, string(l)) || len(s) != len(l) {
			t.Fatalf("%q became %q", s, l)
		}
		if _, err := ParseAddress(string(l) + "@example.com"); err != nil {
			t.Fatalf("%q is no local part: %v", l, err)
		}
	})
}
