package api

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// well is a town where nothing stands in the way of jansen's mail.
func well(t *testing.T) *town {
	w := newTown(t)
	w.account("jansen", "192.0.2.10")
	w.out.mx["jansen.example"] = []*net.MX{{Host: "mx1.provider.example.", Pref: 10}}
	w.out.banners["192.0.2.10:25"] = "220 mail.jansen.example ESMTP"
	if _, err := w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "jansen", Address: "192.0.2.10"}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *town) explain() wire.Explain {
	w.t.Helper()
	e, err := w.admin.Explain(w.ctx(), "jansen", true, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func check(t *testing.T, e wire.Explain, name string) wire.Check {
	t.Helper()
	for _, c := range e.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %s", name)
	return wire.Check{}
}

func TestWhereNothingIsWrongTheExplanationSaysSo(t *testing.T) {
	w := well(t)
	e := w.explain()
	if e.Verdict != wire.OK || !strings.HasPrefix(e.Summary, "nothing stands in the way") || e.Banner != "220 mail.jansen.example ESMTP" {
		t.Fatalf("%+v", e)
	}
	var names []string
	for _, c := range e.Checks {
		names = append(names, c.Name)
		if c.Verdict == wire.Bad || c.Verdict == wire.Warn || c.Found == "" {
			t.Errorf("%+v", c)
		}
	}
	if got := strings.Join(names, " "); got != "account domains quota hold route port25 banner open-relay last-attempt next-attempt queue presence double-login debounce" {
		t.Fatal(got)
	}
	if c := check(t, e, "open-relay"); c.Found != "not tested by this version" || c.Verdict != wire.Skipped {
		t.Fatal(c)
	}
	_, err := w.admin.Explain(w.ctx(), "nobody", true, true)
	wantKind(t, err, mail.NotFound, "nobody")
}

func TestWhatStandsInTheWayIsExplained(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  []func(*town)
		check   string
		verdict wire.Verdict
		found   string
		advice  string
	}{
		{"the account is inactive", []func(*town){patched(wire.AccountPatch{Inactive: ptr("not paid")})}, "account", wire.Bad, "not paid", "account set jansen"},
		{"no MX", []func(*town){func(w *town) { delete(w.out.mx, "jansen.example") }}, "domains", wire.Bad, "has no MX record", "must be mx1.provider.example"},
		{"MX elsewhere", []func(*town){mxIs("mail.other.example")}, "domains", wire.Bad, "10 mail.other.example", "goes elsewhere first"},
		{"MX partly elsewhere", []func(*town){mxIs("MX1.provider.example", "backup.other.example")}, "domains", wire.Warn, "20 backup.other.example", "past this server"},
		{"nothing to push to", []func(*town){patched(wire.AccountPatch{Addresses: &[]string{}})}, "route", wire.Bad, "no route and no fixed address", "--route HOST"},
		{"a route that does not exist", []func(*town){patched(wire.AccountPatch{Route: ptr("mail.nowhere.example")})}, "route", wire.Bad, "does not exist", "correct the route"},
		{"port 25 refuses", []func(*town){func(w *town) { delete(w.out.banners, "192.0.2.10:25") }}, "port25", wire.Bad, "connection refused", "nothing listens on port 25"},
		{"port 25 hangs", []func(*town){bannerIs("")}, "port25", wire.Bad, "no banner came", "a firewall drops port 25"},
		{"the server refuses", []func(*town){bannerIs("554 no service")}, "port25", wire.Bad, "554 no service", "own words"},
		{"a PIX", []func(*town){bannerIs("220 *********0*2******")}, "banner", wire.Warn, "PIX firewall", "no fixup protocol smtp"},
		{"offline", []func(*town){func(w *town) { w.clock = time.Minute }, func(w *town) {
			w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "jansen", Event: "stop"})
			w.clock = 0
		}}, "presence", wire.Warn, "is offline since", "pushed when the customer comes online"},
		{"a lost Stop", []func(*town){loggedIn("192.0.2.10", "s1"), func(w *town) {
			w.limits.SessionLife = 48 * time.Hour
			w.ahead = 49 * time.Hour
		}}, "presence", wire.Warn, "online until a Stop was missed", "Interim-Updates"},
		{"a damaged row of presence", []func(*town){loggedIn("192.0.2.10", "s1"), func(w *town) {
			batch := w.store.Begin()
			if err := errors.Join(batch.Set([]byte("P/jansen"), []byte{0xff}), batch.Commit()); err != nil {
				panic(err)
			}
		}}, "presence", wire.Warn, "the row is damaged", "does not keep mail"},
		{"a second session", []func(*town){loggedIn("192.0.2.10", "s1"), loggedIn("192.0.2.10", "s2")}, "double-login", wire.Warn, "double login", "used twice"},
		{"a wrong address", []func(*town){loggedIn("198.51.100.1", "s1")}, "double-login", wire.Warn, "double login", "not the account's"},
		{"the last attempt failed", []func(*town){queuedFor(time.Hour), func(w *town) { w.attempt("account/jansen", "no route to host", 30*time.Minute) }}, "last-attempt", wire.Bad, "no route to host", "port25"},
		{"three attempts failed", []func(*town){queuedFor(time.Hour), failedTimes(3)}, "last-attempt", wire.Bad, "failed (3 failed in a row): no route", "port25"},
		{"a new attempt after one that failed", []func(*town){queuedFor(time.Hour), failedTimes(1), claimedByAnother}, "last-attempt", wire.Warn, "under way, begun 0 s ago (the timer); the one before it: failed: no route", "when the session has ended"},
		{"a first attempt", []func(*town){queuedFor(time.Hour), claimedByAnother}, "last-attempt", wire.OK, "under way", ""},
		{"debounced", []func(*town){queuedFor(0), loggedIn("192.0.2.10", "s1"), loggedIn("192.0.2.10", "s1b")}, "debounce", wire.Warn, "1 login debounced since the one", "queue retry --account jansen"},
		{"nearly full", []func(*town){queuedFor(0), patched(wire.AccountPatch{Quota: ptr(int64(110))})}, "quota", wire.Warn, "91 %", "--quota SIZE"},
		{"full", []func(*town){queuedFor(0), patched(wire.AccountPatch{Quota: ptr(int64(100))})}, "quota", wire.Bad, "quota is full", "bounced"},
		{"held", []func(*town){func(w *town) { w.admin.HoldQueue(w.ctx(), "account/jansen", wire.QueueHold{Reason: "moving"}) }}, "hold", wire.Bad, "moving", "queue release --account jansen"},
		{"a message held by itself", []func(*town){queuedFor(0), queuedFor(0), heldAlone(1)}, "hold", wire.Warn, "1 of 2 messages", "--state hold"},
		{"all messages held by themselves", []func(*town){queuedFor(0), queuedFor(0), heldAlone(2)}, "hold", wire.Bad, "every message", "queue release --account jansen"},
		{"suspended", []func(*town){func(w *town) { w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "all", Reason: "works"}) }}, "hold", wire.Bad, "works", "delivery resume all"},
		{"old mail", []func(*town){queuedFor(5 * time.Hour)}, "queue", wire.Warn, "the oldest for 5 h", ""},
		{"waiting for the timer", []func(*town){queuedFor(time.Hour), func(w *town) { w.attempt("account/jansen", "x", time.Minute) }}, "next-attempt", wire.OK, "in 1", ""},
		{"a session at work", []func(*town){queuedFor(0), claimedByAnother}, "next-attempt", wire.OK, "node n2 works on the queue", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := well(t)
			for _, f := range c.change {
				f(w)
			}
			e := w.explain()
			got := check(t, e, c.check)
			if got.Verdict != c.verdict || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Advice, c.advice) {
				t.Fatalf("%+v", got)
			}
			if wire.Worse(e.Verdict, c.verdict) != e.Verdict {
				t.Fatalf("the whole is %s and this check %s", e.Verdict, c.verdict)
			}
			if e.Verdict == wire.Bad && e.Summary == "" {
				t.Fatal("no summary")
			}
		})
	}
}

func TestOfMailThatWaitsTheWayOutIsBlamedFirst(t *testing.T) {
	w := well(t)
	delete(w.out.mx, "jansen.example")
	delete(w.out.banners, "192.0.2.10:25")
	if e := w.explain(); !strings.Contains(e.Summary, "no MX record") {
		t.Error("nothing waits:", e.Summary)
	}
	w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, 0)
	if e := w.explain(); !strings.Contains(e.Summary, "does not answer") {
		t.Error("mail waits:", e.Summary)
	}
}

func TestAnExplanationAsksNobodyWhenToldNotTo(t *testing.T) {
	w := well(t)
	w.out.mx = nil
	e, err := w.admin.Explain(w.ctx(), "jansen", false, false)
	if err != nil || check(t, e, "port25").Verdict != wire.Skipped || check(t, e, "domains").Verdict != wire.Skipped || len(w.out.dialled) != 0 {
		t.Fatal(e, err, w.out.dialled)
	}
}

func TestAProbeLeavesFromTheSourceOfPushes(t *testing.T) {
	w := well(t)
	w.sources = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("198.51.100.7")}
	w.explain()
	if got := fmt.Sprint(w.out.dialled); got != "[198.51.100.7 192.0.2.10:25]" {
		t.Fatal(got)
	}
}

func TestADomainIsChecked(t *testing.T) {
	w := well(t)
	w.out.addrs["mail.jansen.example"] = []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	if _, err := w.admin.SetDomain(w.ctx(), "jansen.example", wire.DomainPatch{Route: ptr("mail.jansen.example:2525")}); err != nil {
		t.Fatal(err)
	}
	d, err := w.admin.CheckDomain(w.ctx(), "Jansen.Example")
	if err != nil || d.Verdict != wire.OK || d.Route != "mail.jansen.example:2525" || fmt.Sprint(d.MX) != "[10 mx1.provider.example]" ||
		!strings.Contains(d.Checks[1].Found, "192.0.2.10:2525 (fixed address of account jansen)") {
		t.Fatalf("%+v %v", d, err)
	}
	_, err = w.admin.CheckDomain(w.ctx(), "nowhere.example")
	wantKind(t, err, mail.NotFound, "nowhere.example")
}

func TestABannerThatAPIXHasMasked(t *testing.T) {
	for banner, want := range map[string]bool{
		"220 ***********************************": true,
		"220 ****2****0*****":                     true,
		"220-******5**":                           true,
		"220 mail.example ESMTP":                  false,
		"220 ** mail":                             false,
		"220":                                     false,
		"554 *****":                               false,
	} {
		if isPIX(banner) != want {
			t.Error(banner)
		}
	}
}
