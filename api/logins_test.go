package api

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func TestALoginEventIsToldAndShown(t *testing.T) {
	w := newTown(t)
	w.account("jansen", "192.0.2.10")
	w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, 0)
	start := wire.LoginEvent{Login: "Jansen", Address: "192.0.2.10", NAS: "nas1", Session: "1"}
	r, err := w.admin.SendLogin(w.ctx(), start)
	if err != nil || r != (wire.LoginResult{Login: "jansen", Online: true, Triggered: true, Queued: 1}) {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err = w.admin.SendLogin(w.ctx(), start); err != nil || !r.Duplicate || r.Triggered {
		t.Fatalf("%+v %v", r, err)
	}
	r, err = w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "jansen", Address: "198.51.100.1", NAS: "nas1", Session: "2"})
	if err != nil || !r.Debounced || r.Double != "session" {
		t.Fatalf("%+v %v", r, err)
	}
	r, err = w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "nobody"})
	if err != nil || r != (wire.LoginResult{Login: "nobody", Unknown: true}) {
		t.Fatalf("%+v %v", r, err)
	}

	if _, text := w.rawAdmin("GET", "/metrics", ""); !strings.Contains(text, `bsmtpd_api_login_doubles_total{way="session"} 1`) {
		t.Error("the double login was not counted")
	}
	p, err := w.admin.Login(w.ctx(), "jansen")
	if err != nil || !p.Online || len(p.Sessions) != 2 || p.Sessions[0].Address != "192.0.2.10" || p.Doubles == 0 {
		t.Fatalf("%+v %v", p, err)
	}
	w.account("offline")
	for _, e := range []string{"start", "stop"} {
		if _, err := w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "offline", Event: e, NAS: "n", Session: "9"}); err != nil {
			t.Fatal(err)
		}
	}
	names := func(online, double bool) string {
		var out []string
		for _, p := range collect(t, w.admin.Logins(w.ctx(), online, double, client.Page{})) {
			out = append(out, string(p.Login))
		}
		return strings.Join(out, " ")
	}
	if got := names(false, false) + "/" + names(true, false) + "/" + names(false, true); got != "jansen offline/jansen/jansen" {
		t.Fatal(got)
	}
	_, err = w.admin.Login(w.ctx(), "nobody")
	wantKind(t, err, mail.NotFound, "no login event")
}

func TestTheAuditIsReadInBothDirections(t *testing.T) {
	w := newTown(t)
	const n = pageRows + 20
	if err := w.apply(func(m *spool.Moves) error {
		for i := range n {
			rec := directory.AuditRecord{By: fmt.Sprint("by", i%2), Action: "queue hold", Object: fmt.Sprint("o", i%3)}
			if err := rec.Apply(m.Tx, m.Now); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seqs := func(f client.AuditFilter, p client.Page) []uint64 {
		var out []uint64
		for _, r := range collect(t, w.admin.Audit(w.ctx(), f, p)) {
			out = append(out, r.Seq)
		}
		return out
	}
	newest, oldest := seqs(client.AuditFilter{}, client.Page{}), seqs(client.AuditFilter{Oldest: true}, client.Page{})
	if len(newest) != n || len(oldest) != n || newest[0] != n || newest[n-1] != 1 || oldest[0] != 1 {
		t.Fatal(len(newest), len(oldest))
	}
	if got := fmt.Sprint(seqs(client.AuditFilter{}, client.Page{After: "4", Limit: 9})); got != "[3 2 1]" {
		t.Fatal(got)
	}
	if got := fmt.Sprint(seqs(client.AuditFilter{Oldest: true, By: "by1", Object: "o2", Action: "queue"}, client.Page{After: "3", Limit: 2})); got != "[6 12]" {
		t.Fatal(got)
	}
	if got := seqs(client.AuditFilter{Action: "account"}, client.Page{}); got != nil {
		t.Fatal(got)
	}
}

func TestAListThatIsNotWholeEndsWithItsProblem(t *testing.T) {
	w := newTown(t)
	w.account("a")
	w.account("c")
	if err := w.apply(func(m *spool.Moves) error { return m.Tx.Set([]byte("A/b"), []byte{0xff}) }); err != nil {
		t.Fatal(err)
	}
	var got []mail.Login
	var last error
	for a, err := range w.admin.Accounts(w.ctx(), client.Page{}) {
		if err != nil {
			last = err
			break
		}
		got = append(got, a.Login)
	}
	if fmt.Sprint(got) != "[a c]" {
		t.Fatal(got)
	}
	wantKind(t, last, mail.Broken, "A/b")
}

func TestSourcesComeWithConfigurationForTheOtherSide(t *testing.T) {
	w := newTown(t)
	s, err := w.admin.Sources(w.ctx())
	if err != nil || len(s.Addresses) != 0 || len(s.Snippets) != 0 {
		t.Fatal(s, err)
	}
	w.sources = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	if s, err = w.admin.Sources(w.ctx()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"postfix": "192.0.2.1/32\tOK", "exchange": "New-ReceiveConnector", "microsoft365": "Set-HostedConnectionFilterPolicy",
		"nftables": "ip6 saddr { 2001:db8::1 } tcp dport 25 accept", "cisco": "permit tcp host 192.0.2.1 any eq smtp", "spf": "trusted_networks 192.0.2.1 2001:db8::1"}
	for _, sn := range s.Snippets {
		if !strings.Contains(sn.Text, want[sn.For]) || !strings.Contains(sn.Text, "192.0.2.1") || !strings.Contains(sn.Text, "2001:db8::1") {
			t.Errorf("%s:\n%s", sn.For, sn.Text)
		}
		delete(want, sn.For)
	}
	if len(want) != 0 {
		t.Error(want)
	}
}
