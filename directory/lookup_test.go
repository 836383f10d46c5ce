package directory

import (
	"fmt"
	"testing"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

func TestWhoseMailAnAddressIs(t *testing.T) {
	o := newOffice(t)
	o.account("jansen", alias("info", "jörg"))
	o.account("a+b")
	o.account("a")
	o.domain("jansen.example", "jansen")
	for addr, want := range map[mail.Address]string{
		"anyone@jansen.example":             "customer jansen jansen.example",
		"@jansen.example":                   "customer jansen jansen.example",
		"x@sub.jansen.example":              "unknown",
		"x@elsewhere.example":               "unknown",
		"":                                  "unknown",
		"jansen@provider.example":           "mailbox jansen",
		"JANSEN@isp.example":                "mailbox jansen",
		`"jansen"@provider.example`:         "mailbox jansen",
		`"jan\sen"@provider.example`:        "mailbox jansen",
		"info@provider.example":             "mailbox jansen",
		"Info+tag@provider.example":         "mailbox jansen",
		"jörg@provider.example":             "mailbox jansen",
		"jansen+a+b@provider.example":       "mailbox jansen",
		"a+b+tag@provider.example":          "mailbox a+b",
		"a+c@provider.example":              "mailbox a",
		"jan@provider.example":              "nobody",
		"+jansen@provider.example":          "nobody",
		"jansen+@provider.example":          "mailbox jansen",
		"a+++++++++++++++@provider.example": "nobody", // more tags than are looked through
		`"@provider.example`:                "nobody",
	} {
		d, err := o.reader().Lookup(addr)
		if err != nil {
			t.Fatal(addr, err)
		}
		got := [...]string{"unknown", "customer", "mailbox", "nobody"}[d.Kind]
		if d.Account != nil {
			got += " " + string(d.Account.Login)
		}
		if d.Domain != nil {
			got += " " + string(d.Domain.Name)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

func TestADomainWithoutItsAccountIsADamagedDirectory(t *testing.T) {
	o := newOffice(t)
	o.account("jansen")
	o.domain("jansen.example", "jansen")
	if err := o.change(func(tx kv.Tx) error { return tx.Delete(accountKey("jansen")) }); err != nil {
		t.Fatal(err)
	}
	_, err := o.reader().Lookup("x@jansen.example")
	wantKind(t, err, mail.Broken, "account jansen, which does not exist")
}

func TestTheRouteOfADomain(t *testing.T) {
	acct := Account{Route: Route{Host: "mail.example"}}
	fixed := Account{}
	at("192.0.2.1", "192.0.2.2")(&fixed)
	dom := Domain{Route: Route{Host: "other.example", Port: 26}}
	for want, got := range map[string]Route{
		"other.example:26": RouteOf(&acct, &dom),
		"mail.example:25":  RouteOf(&acct, &Domain{}),
		"192.0.2.1:25":     RouteOf(&fixed, nil),
		"":                 RouteOf(&Account{}, nil),
	} {
		if got.String() != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRoutesAreReadAndWritten(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"Mail.Example":          "mail.example",
		"mail.example:2525":     "mail.example:2525",
		"192.0.2.1:26/verify":   "192.0.2.1:26/verify",
		"2001:db8::1":           "2001:db8::1",
		"[2001:DB8::1]:26":      "[2001:db8::1]:26",
		"[2001:db8::1]/require": "2001:db8::1/require",
		"mail.example:0":        "error",
		"mail.example:x":        "error",
		"mail.example:99999":    "error",
		"mail.example/":         "error",
		"mail.example/sure":     "error",
		":25":                   "error",
		"[2001:db8::1":          "error",
		"[2001:db8::1]x":        "error",
		"a b":                   "error",
		"fe80::1%eth0":          "error",
	} {
		r, err := ParseRoute(in)
		got := r.String()
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("ParseRoute(%q) = %s %v, want %s", in, got, err, want)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	o := newOffice(b)
	for i := range 1000 {
		o.account(fmt.Sprint("login", i))
		o.domain(fmt.Sprint("d", i, ".example"), fmt.Sprint("login", i))
	}
	r := o.reader()
	for name, addr := range map[string]mail.Address{"customer": "x@d500.example", "mailbox": "login500@provider.example", "unknown": "x@y.example"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Lookup(addr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
