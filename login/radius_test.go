package login

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc6911"

	"bsmtpd/directory"
	"bsmtpd/mail"
)

const (
	start   = rfc2866.AcctStatusType_Value_Start
	stop    = rfc2866.AcctStatusType_Value_Stop
	interim = rfc2866.AcctStatusType_Value_InterimUpdate
)

func TestEveryAccountingRecordBecomesItsEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, status := range []rfc2866.AcctStatusType{start, stop, interim,
			rfc2866.AcctStatusType_Value_AccountingOn, rfc2866.AcctStatusType_Value_AccountingOff} {
			raw := encode(t, w.packet(status))
			if reply := w.send(raw); !radius.IsAuthenticResponse(reply, raw, []byte(DefaultSecret)) || reply[0] != byte(radius.CodeAccountingResponse) {
				t.Fatalf("%v: reply %x", status, reply)
			}
		}
		session := directory.Event{Login: "jansen", Address: netip.MustParseAddr("192.0.2.10"), NAS: "nas1", Session: "s1", Source: "radius"}
		server := session
		server.Login = ""
		var want []directory.Event
		for kind := directory.EventStart; kind <= directory.EventOff; kind++ {
			e := session
			if kind >= directory.EventOn {
				e = server
			}
			e.Kind = kind
			want = append(want, e)
		}
		if got := w.book.heard(); !slices.Equal(got, want) {
			t.Fatalf("heard %+v\nwant %+v", got, want)
		}
		if !strings.Contains(w.log.String(), "event=start outcome=triggered login=jansen source=radius from=127.0.0.1:4000 address=192.0.2.10") {
			t.Errorf("log: %s", w.log)
		}
	})
}

func TestWithoutACommitThereIsNoAnswerAndTheNextTryCounts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.answer = func(n int, e directory.Event) (directory.Seen, error) {
			if n == 1 {
				return directory.Seen{}, errLeader
			}
			return directory.Seen{Login: e.Login, Triggers: true}, nil
		}
		raw := encode(t, w.packet(start))
		if reply := w.send(raw); reply != nil {
			t.Fatalf("answered before it was committed: %x", reply)
		}
		if reply := w.send(raw); reply == nil {
			t.Fatal("the retransmission got no answer")
		}
		if w.count("login_events_total", "radius", "failed") != 1 || w.count("radius_dropped_total", "failed") != 1 {
			t.Error("not counted")
		}
	})
}

func TestARetransmissionIsNotAppliedTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.slow = time.Second
		raw := encode(t, w.packet(start))
		for range 3 {
			if reply := w.send(raw); reply != nil {
				t.Fatal("answered while in flight")
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		first := w.received()
		if first == nil || w.received() != nil {
			t.Fatal("want one answer")
		}
		time.Sleep(replyMemory - time.Second)
		if again := w.send(raw); !bytes.Equal(again, first) {
			t.Fatalf("from memory: %x, want %x", again, first)
		}
		if n := len(w.book.heard()); n != 1 || w.count("radius_retransmitted_total") != 3 {
			t.Fatalf("applied %d times", n)
		}
		time.Sleep(replyMemory)
		w.send(raw)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(w.book.heard()); n != 2 {
			t.Fatalf("after the memory has gone it is the directory's to tell: %d", n)
		}
	})
}

func TestUselessPacketsAreDroppedAndCounted(t *testing.T) {
	inWorld(t, func(w *world) {
		secret := func(s string) func(*radius.Packet) { return func(p *radius.Packet) { p.Secret = []byte(s) } }
		good := encode(t, w.packet(start))
		broken := encode(t, &radius.Packet{Code: radius.CodeAccountingRequest, Secret: []byte(DefaultSecret),
			Attributes: radius.Attributes{{Type: 40, Attribute: []byte{0, 0, 0, 1}}}})
		broken[21] = 3 // the attribute ends before the packet does
		sum := md5.New()
		sum.Write(broken[:4])
		sum.Write(make([]byte, 16))
		sum.Write(broken[20:])
		sum.Write([]byte(DefaultSecret))
		copy(broken[4:], sum.Sum(nil))
		for _, c := range []struct {
			reason, from string
			packet       []byte
		}{
			{dropAuthenticator, "127.0.0.1:1", encode(t, w.packet(start, secret("guess")))},
			{dropAuthenticator, "192.0.2.9:1", good},
			{dropClient, "198.51.100.1:1", good},
			{dropClient, "[2001:db8::1]:1", good},
			{dropMalformed, "127.0.0.1:1", []byte("hello")},
			{dropMalformed, "127.0.0.1:1", nil},
			{dropMalformed, "127.0.0.1:1", good[:30]},
			{dropMalformed, "127.0.0.1:1", broken},
			{dropCode, "127.0.0.1:1", append([]byte{1}, good[1:]...)},
			{dropAuthenticator, "127.0.0.1:1", append([]byte{12}, good[1:]...)},
			{dropStatus, "127.0.0.1:1", encode(t, w.packet(start, func(p *radius.Packet) { p.Del(rfc2866.AcctStatusType_Type) }))},
		} {
			before := w.count("radius_dropped_total", c.reason)
			if reply := w.sendFrom(c.packet, c.from); reply != nil {
				t.Errorf("%s: answered %x", c.reason, reply)
			}
			if w.count("radius_dropped_total", c.reason) != before+1 {
				t.Errorf("%s from %s not counted", c.reason, c.from)
			}
		}
		if len(w.book.heard()) != 0 || strings.Contains(w.log.String(), DefaultSecret) || strings.Contains(w.log.String(), "verborgen") {
			t.Errorf("heard %v; log %s", w.book.heard(), w.log)
		}
		if n := strings.Count(w.log.String(), "reason=malformed"); n != 1 {
			t.Errorf("%d lines for one reason in one moment", n)
		}
		if w.sendFrom(encode(t, w.packet(start, secret("verborgen"))), "192.0.2.9:1") == nil {
			t.Error("a client with its own secret is not answered")
		}
	})
}

func TestWhatCanNeverBeRecordedIsAnswered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.answer = func(int, directory.Event) (directory.Seen, error) {
			return directory.Seen{}, mail.Fail(mail.Invalid, "no")
		}
		for what, p := range map[string]*radius.Packet{
			"a tunnel":          w.packet(9),
			"no name":           w.packet(start, func(p *radius.Packet) { p.Del(rfc2865.UserName_Type) }),
			"an impossible one": w.packet(start, func(p *radius.Packet) { rfc2865.UserName_SetString(p, "../etc") }),
			"a refused event":   w.packet(start),
		} {
			if w.send(encode(t, p)) == nil {
				t.Errorf("%s: no answer", what)
			}
		}
		if w.count("login_events_total", "unknown") != 2 || w.count("login_events_total", "refused") != 1 {
			t.Error("not counted")
		}
	})
}

func TestProxyStateAndPaddingAndStatusServer(t *testing.T) {
	inWorld(t, func(w *world) {
		raw := encode(t, w.packet(start, func(p *radius.Packet) {
			rfc2865.ProxyState_AddString(p, "one")
			rfc2865.ProxyState_AddString(p, "two")
		}))
		reply, err := radius.Parse(w.send(append(raw, "padding"...)), []byte(DefaultSecret))
		if err != nil || len(reply.Attributes) != 2 {
			t.Fatalf("reply %+v %v", reply, err)
		}
		if got, _ := rfc2865.ProxyState_GetStrings(reply); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("Proxy-State %q", got)
		}
		p := &radius.Packet{Code: radius.CodeStatusServer, Identifier: 200, Secret: []byte(DefaultSecret)}
		rfc2865.NASIdentifier_SetString(p, "proxy")
		rfc2869.MessageAuthenticator_Set(p, make([]byte, 16))
		raw = encode(t, p)
		mac := hmac.New(md5.New, p.Secret)
		mac.Write(raw)
		rfc2869.MessageAuthenticator_Set(p, mac.Sum(nil))
		raw = encode(t, p)
		if !radius.IsAuthenticResponse(w.send(raw), raw, p.Secret) {
			t.Error("Status-Server has no answer")
		}
		raw[len(raw)-1] ^= 1
		if w.send(raw) != nil {
			t.Error("a forged Status-Server has an answer")
		}
	})
}

func TestAFloodIsDroppedAndTheServerLives(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.slow = time.Second
		for range 50 {
			w.send(encode(t, w.packet(start)))
		}
		if got := w.count("radius_dropped_total", dropFlood); got != 50-4-8 {
			t.Errorf("dropped %v, want all but 4 workers' and a queue of 8", got)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		for range 12 {
			if w.received() == nil {
				t.Fatal("a queued request got no answer")
			}
		}
		w.send(encode(t, w.packet(start)))
		time.Sleep(time.Second)
		synctest.Wait()
		if w.received() == nil {
			t.Error("no answer after the flood")
		}
	})
}

func TestAPanicEndsOneRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.answer = func(n int, e directory.Event) (directory.Seen, error) {
			if n == 1 {
				panic("a bug")
			}
			return directory.Seen{}, nil
		}
		raw := encode(t, w.packet(start))
		if w.send(raw) != nil || w.count("radius_dropped_total", dropPanic) != 1 {
			t.Error("want a counted panic and no answer")
		}
		if w.send(raw) == nil {
			t.Error("the server is gone")
		}
	})
}

func TestAStopLetsRequestsInWorkFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.server.Run(ctx) }()
		w.book.slow = time.Second
		raw := encode(t, w.packet(start))
		w.send(raw)
		cancel()
		if err := <-done; err != nil || w.received() == nil {
			t.Fatalf("no answer before the end: %v", err)
		}
	})
}

func TestAnEventThatTakesForeverIsGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.slow = time.Hour
		w.send(encode(t, w.packet(start)))
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if w.received() != nil || w.count("login_events_total", "failed") != 1 {
			t.Error("want no answer and a count")
		}
	})
}

func TestRulesChangeWhileRunning(t *testing.T) {
	inWorld(t, func(w *world) {
		cfg := testConfig()
		cfg.StripRealm = false
		cfg.Radius.Clients = []Client{{Network: "127.0.0.1", Secret: "nieuw"}}
		w.server.SetConfig(cfg)
		if w.send(encode(t, w.packet(start))) != nil {
			t.Error("the old secret still works")
		}
		if w.send(encode(t, w.packet(start, func(p *radius.Packet) { p.Secret = []byte("nieuw") }))) == nil {
			t.Error("the new secret does not work")
		}
		if w.count("login_events_total", "unknown") != 1 {
			t.Error("the realm was taken off")
		}
		cfg.Radius.Clients = []Client{{Network: "nonsense"}}
		w.server.SetConfig(cfg)
		if w.send(encode(t, w.packet(stop, func(p *radius.Packet) { p.Secret = []byte("nieuw") }))) == nil {
			t.Error("a bad list must change nothing")
		}
	})
}

func TestAttributesAreReadAsAccessServersWriteThem(t *testing.T) {
	source := netip.MustParseAddr("192.0.2.1")
	read := func(f func(p *radius.Packet)) directory.Event {
		p := &radius.Packet{}
		rfc2866.AcctStatusType_Set(p, start)
		f(p)
		a, err := readAccounting(p, source)
		if err != nil {
			t.Fatal(err)
		}
		return a.event
	}
	if e := read(func(p *radius.Packet) {}); e.NAS != "192.0.2.1" || e.Session != "" || e.Address.IsValid() {
		t.Errorf("nothing but a status: %+v", e)
	}
	if e := read(func(p *radius.Packet) { rfc2865.NASIPAddress_Set(p, []byte{10, 0, 0, 1}) }); e.NAS != "10.0.0.1" {
		t.Errorf("NAS-IP-Address: %+v", e)
	}
	if e := read(func(p *radius.Packet) { rfc2866.AcctSessionID_Set(p, []byte{0xff, 0}) }); e.Session != "0xff" {
		t.Errorf("a binary session: %q", e.Session)
	}
	for seconds, want := range map[uint32]time.Duration{0: 0, 90: 90 * time.Second, 1 << 31: directory.MaxDelay} {
		if e := read(func(p *radius.Packet) { rfc2866.AcctDelayTime_Set(p, rfc2866.AcctDelayTime(seconds)) }); e.Delay != want {
			t.Errorf("Acct-Delay-Time %d: %s", seconds, e.Delay)
		}
	}
	long := read(func(p *radius.Packet) { rfc2866.AcctSessionID_Set(p, bytes.Repeat([]byte{1}, 253)) })
	if len(long.Session) > directory.MaxSessionID || !strings.HasPrefix(long.Session, "sha256:") {
		t.Errorf("a long binary session: %q", long.Session)
	}
	if e := read(func(p *radius.Packet) { rfc2865.FramedIPAddress_Set(p, []byte{255, 255, 255, 254}) }); e.Address.IsValid() {
		t.Errorf("the server chooses: %+v", e)
	}
	if e := read(func(p *radius.Packet) {
		rfc6911.FramedIPv6Address_Set(p, netip.MustParseAddr("2001:db8::5").AsSlice())
	}); e.Address.String() != "2001:db8::5" {
		t.Errorf("IPv6: %+v", e)
	}
}

func TestLoginNames(t *testing.T) {
	for name, want := range map[string]string{
		"Jansen": "jansen", " jansen@example.net ": "jansen", `EXAMPLE\jansen`: "jansen", "a@b@c": "a",
		"": "", "@example.net": "", "ja nsen": "", "jansen\x00": "",
	} {
		if got, err := Normalise(name, true); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", name, got, err)
		}
	}
	if _, err := Normalise("jansen@example.net", false); err == nil {
		t.Error("a realm that is not stripped is no login")
	}
}

func TestRepliesAreBounded(t *testing.T) {
	r := newReplies()
	for i := range maxReplies + 100 {
		k := requestKey{from: netip.MustParseAddrPort(fmt.Sprintf("10.%d.%d.1:1", i>>8, i&255))}
		if _, fresh := r.begin(k); !fresh {
			t.Fatal("seen before")
		}
		r.end(k, []byte{1})
	}
	if len(r.known) != maxReplies || len(r.answered) != maxReplies {
		t.Errorf("%d known, %d answered", len(r.known), len(r.answered))
	}
}

func FuzzPacket(f *testing.F) {
	w := &world{}
	for _, status := range []rfc2866.AcctStatusType{start, stop, interim} {
		f.Add(encode(f, w.packet(status)))
	}
	f.Add([]byte{4, 1, 0, 22, 22: 0})
	cs, err := newClients(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := wire(b)
		if raw == nil {
			return
		}
		authentic(raw, cs[0].secret)
		p, err := radius.Parse(raw, cs[0].secret)
		if err != nil {
			return
		}
		a, err := readAccounting(p, netip.IPv6Loopback())
		if err == nil && (len(a.event.NAS) > directory.MaxNASName || len(a.event.Session) > directory.MaxSessionID) {
			t.Fatalf("too long: %+v", a.event)
		}
		Normalise(a.name, true)
		response(p)
	})
}
