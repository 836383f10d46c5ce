package delivery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestDomainsWithTheirOwnRoute(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		main := w.jansen(&mx{offers: allOffers})
		branch := w.serve("192.0.2.20:2525", &mx{offers: allOffers})
		w.dns.addrs = map[string][]netip.Addr{"mx.branch.example": addrs("192.0.2.20")}
		w.dir.domain("branch.example", "jansen", directory.Route{Host: "mx.branch.example", Port: 2525})
		w.dir.domain("away.example", "jansen", directory.Route{Host: "192.0.2.30"}) // refuses connections
		w.pusher.Pause(true)
		w.mail("jansen", "1\r\n", "a@jansen.example", "b@branch.example")
		w.mail("jansen", "2\r\n", "b@branch.example")
		w.mail("jansen", "3\r\n", "a@jansen.example", "c@away.example")
		w.mail("jansen", "4\r\n", "a@gone.example")
		w.pusher.Pause(false)
		w.pass(time.Second)
		left := w.left(jansensQueue, 1)
		if main.bodies() != "1 3 4" || branch.bodies() != "1 2" || left[0].To[0].Address != "c@away.example" {
			t.Fatal(main.bodies(), "/", branch.bodies(), left)
		}
		if q := w.queue("jansen"); q.LastOutcome != spool.OutcomeFailed || q.LastRemote != "192.0.2.30:25" {
			t.Fatalf("%+v", q)
		}
	})
}

func TestAddressesOfAHostAreTriedInOrder(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.dir.put("jansen", directory.Account{Route: directory.Route{Host: "mail.jansen.example"}})
		w.dns.addrs = map[string][]netip.Addr{"mail.jansen.example": addrs("192.0.2.9", "2001:db8::10", "192.0.2.10")}
		m := w.serve("[2001:db8::10]:25", &mx{offers: allOffers})
		w.mail("jansen", "x\r\n")
		w.pass(time.Second)
		if w.left(jansensQueue, 0); len(m.got()) != 1 {
			t.Fatal(w.net.dialled())
		}
		want := []string{"198.51.100.1 > 192.0.2.9:25", "198.51.100.1 > [2001:db8::10]:25"}
		if got := w.net.dialled(); !slices.Equal(got, want) {
			t.Fatal(got)
		}
	})
}

func TestAccountWithoutARouteSaysSo(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.dir.put("jansen", directory.Account{})
		w.keptAfter(time.Second, spool.OutcomeFailed, "account jansen has no route and no fixed address")
	})
	story(t, func(t *testing.T, w *world) {
		w.dir.put("jansen", directory.Account{Route: directory.Route{Host: "nowhere.example"}})
		w.keptAfter(time.Second, spool.OutcomeFailed, "nowhere.example")
	})
}

func TestRouteBackToThisServerIsRefused(t *testing.T) {
	story(t, func(t *testing.T, w *world) { // by its address
		w.dir.put("jansen", directory.Account{Route: directory.Route{Host: "198.51.100.1"}})
		w.keptAfter(time.Second, spool.OutcomeFailed, "route loops back to this server")
		if len(w.net.dialled()) != 0 {
			t.Fatal(w.net.dialled())
		}
	})
	for _, m := range []*mx{{banner: "220 BSMTP.example.net ESMTP"},
		{script: func(_ *mxConn, line string) (string, bool) {
			return "250 bsmtp.example.net", strings.HasPrefix(line, "EHLO")
		}}} {
		story(t, func(t *testing.T, w *world) {
			w.jansen(m)
			w.keptAfter(time.Second, spool.OutcomeFailed, "route loops back to this server")
		})
	}
	story(t, func(t *testing.T, w *world) {
		w.dns.mx = map[string][]*net.MX{"world.example": {{Host: "mx.world.example", Pref: 10}}}
		w.dns.addrs = map[string][]netip.Addr{"mx.world.example": addrs("198.51.100.1")}
		w.out("world.example", "554 5.4.6")
	})
}

func TestListensOn(t *testing.T) {
	s := &Self{Listening: func() []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("[::]:25"), netip.MustParseAddrPort("127.0.0.1:2525")}
	}}
	for _, tc := range []struct {
		dest, local string
		want        bool
	}{
		{"192.0.2.1:25", "192.0.2.7", false},
		{"192.0.2.7:25", "192.0.2.7", true},
		{"127.0.0.5:25", "", true},
		{"127.0.0.1:2525", "", true},
		{"127.0.0.1:2526", "127.0.0.1", false},
		{"127.0.0.2:2525", "127.0.0.1", false},
	} {
		local, _ := netip.ParseAddr(tc.local)
		if got := s.listensOn(netip.MustParseAddrPort(tc.dest), local); got != tc.want {
			t.Errorf("%v: %v", tc, got)
		}
	}
}

func TestPushesLeaveFromTheConfiguredAddressesInTurn(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers})
		for range 3 {
			w.mail("jansen", "x\r\n")
			w.pass(time.Second)
		}
		want := []string{"203.0.113.1 > 192.0.2.10:25", "203.0.113.2 > 192.0.2.10:25", "203.0.113.1 > 192.0.2.10:25"}
		if got := w.net.dialled(); !slices.Equal(got, want) {
			t.Fatal(got)
		}
		w.dir.put("jansen", directory.Account{Route: directory.Route{Host: "2001:db8::10"}})
		w.keptAfter(time.Second, spool.OutcomeFailed, "no source address")
		if got := fmt.Sprint(w.pusher.Sources()); got != "[203.0.113.1 203.0.113.2]" {
			t.Fatal(got)
		}
	}, func(c *Config) { c.SourceAddresses = []string{"203.0.113.1", "203.0.113.2"} })
}

// out queues a message to the world; reply is that of the bounce which is owed
// soon after, or "" if none is.
func (w *world) out(domain, reply string) {
	w.t.Helper()
	w.enqueue(spool.OutQueue(mail.Domain(domain)), mail.Envelope{From: "sender@example.net"}, "x\r\n", "info@"+domain)
	w.pass(time.Second)
	o := w.owed()
	switch {
	case reply == "" && len(o) == 0:
	case reply != "" && len(o) == 1 && strings.HasPrefix(o[0].To[0].Reply.String(), reply):
		w.left(spool.OutQueue(mail.Domain(domain)), 0)
	default:
		q, _, _ := spool.Reader{R: w.db}.Queue(spool.OutQueue(mail.Domain(domain)))
		w.t.Fatalf("owed %+v, last words %q", o, q.LastWords)
	}
}

func TestMailToTheWorld(t *testing.T) {
	const q = spool.QueueName("out/world.example")
	t.Run("goes to the servers in order of preference", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.mx = map[string][]*net.MX{"world.example": {{Host: "mx2.world.example.", Pref: 20}, {Host: "mx1.world.example.", Pref: 10}}}
			w.dns.addrs = map[string][]netip.Addr{"mx1.world.example": addrs("192.0.2.51"), "mx2.world.example": addrs("192.0.2.52")}
			m := w.serve("192.0.2.52:25", &mx{offers: allOffers})
			w.out("world.example", "")
			w.left(q, 0)
			if got := w.net.dialled(); len(m.got()) != 1 || len(got) != 2 || !strings.Contains(got[0], "192.0.2.51") {
				t.Fatal(got)
			}
		})
	})
	t.Run("goes to the domain itself without MX", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.addrs = map[string][]netip.Addr{"world.example": addrs("192.0.2.51")}
			w.serve("192.0.2.51:25", &mx{offers: allOffers})
			w.out("world.example", "")
			w.left(q, 0)
		})
	})
	t.Run("fails for a domain that does not exist", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) { w.out("world.example", "550 5.1.2") })
	})
	t.Run("fails for a domain that takes no mail", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.mx = map[string][]*net.MX{"world.example": {{Host: ".", Pref: 0}}}
			w.out("world.example", "556 5.1.10")
		})
	})
	t.Run("fails when no server exists", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.mx = map[string][]*net.MX{"world.example": {{Host: "a.example", Pref: 0}, {Host: "b.example", Pref: 1}}}
			w.out("world.example", "550 5.4.4")
		})
	})
	t.Run("fails when the best server is this one", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.mx = map[string][]*net.MX{"world.example": {{Host: "bsmtp.example.net.", Pref: 5}, {Host: "b.example", Pref: 5}, {Host: "c.example", Pref: 7}}}
			w.out("world.example", "554 5.4.6")
		})
	})
	t.Run("goes to an address literal", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.serve("192.0.2.51:25", &mx{offers: allOffers})
			w.out("[192.0.2.51]", "")
			w.left("out/[192.0.2.51]", 0)
		})
	})
	t.Run("waits while DNS is down, and backs off", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.fail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
			w.out("world.example", "")
			w.left(q, 1)
			row, _, _ := spool.Reader{R: w.db}.Queue(q)
			if row.LastOutcome != spool.OutcomeFailed || !strings.Contains(row.LastWords, "MX records of world.example") || row.Next.Sub(row.LastAttempt) != 5*time.Minute {
				t.Fatalf("%+v", row)
			}
			w.pass(5 * time.Minute)
			row, _, _ = spool.Reader{R: w.db}.Queue(q)
			if row.Failures != 2 || row.Next.Sub(row.LastAttempt) != 10*time.Minute {
				t.Fatalf("%+v", row)
			}
		})
	})
	t.Run("waits longer after each refusal for now", func(t *testing.T) {
		story(t, func(t *testing.T, w *world) {
			w.dns.addrs = map[string][]netip.Addr{"world.example": addrs("192.0.2.51")}
			w.serve("192.0.2.51:25", &mx{offers: allOffers, final: func(*mxConn, *arrived) string { return "451 4.7.1 greylisted" }})
			w.out("world.example", "")
			first := w.left(q, 1)[0]
			if wait := time.Until(first.RetryAt.Std()); wait < 4*time.Minute || wait > 5*time.Minute {
				t.Fatal(wait)
			}
			w.pass(5 * time.Minute)
			if second := w.left(q, 1)[0]; second.Attempts != 2 || second.RetryAt.Sub(first.RetryAt) != 10*time.Minute {
				t.Fatalf("%+v", second)
			}
		})
	})
}

func TestSmarthostTakesAllMailToTheWorld(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.serve("192.0.2.60:2525", &mx{offers: allOffers})
		w.out("world.example", "")
		if len(m.got()) != 1 {
			t.Fatal(w.net.dialled())
		}
	}, func(c *Config) { c.Smarthost = "192.0.2.60:2525" })
}

func TestConfigIsChecked(t *testing.T) {
	if err := testConfig().Check(); err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	c.Sessions, c.SourceAddresses, c.Smarthost, c.Bandwidth = 0, []string{"mail.example"}, "smart host", 5
	err := c.Check()
	for _, want := range []string{"sessions: 0 is not allowed; use 1 to", "source_addresses: \"mail.example\"", "smarthost: ", "bandwidth: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	if errors.Unwrap(err) != nil {
		t.Error("the errors stand side by side")
	}
}
