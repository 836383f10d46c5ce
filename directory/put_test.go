package directory

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// office is a directory on real rows, with the verbs of an operator.
type office struct {
	t     testing.TB
	store *kv.Store
	now   mail.Time
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := openOffice(t)
	t.Cleanup(func() { o.store.Close() })
	return o
}

// openOffice leaves closing the store to the caller.
func openOffice(t testing.TB) *office {
	t.Helper()
	s, err := kv.Open("db", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return &office{t: t, store: s, now: 1_000_000}
}

func (o *office) reader() Reader {
	return Reader{R: o.store, Provider: []mail.Domain{"provider.example", "isp.example"}}
}

// change runs f in one batch; time goes on by a second.
func (o *office) change(f func(tx kv.Tx) error) error {
	o.t.Helper()
	o.now += 1_000_000
	tx := o.store.Begin()
	over := kv.NewOverlay(tx)
	err := f(over)
	if err == nil {
		if err := over.Apply(); err != nil {
			o.t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		o.t.Fatal(err)
	}
	return err
}

func (o *office) put(items ...PutAccount) []Put {
	o.t.Helper()
	var puts []Put
	if err := o.change(func(tx kv.Tx) (err error) {
		puts, err = PutAccounts{Items: items, By: "tester"}.Apply(tx, o.now)
		return err
	}); err != nil {
		o.t.Fatal(err)
	}
	return puts
}

func (o *office) putDomains(items ...PutDomain) []Put {
	o.t.Helper()
	var puts []Put
	if err := o.change(func(tx kv.Tx) (err error) {
		puts, err = PutDomains{Items: items, By: "tester"}.Apply(tx, o.now)
		return err
	}); err != nil {
		o.t.Fatal(err)
	}
	return puts
}

// account writes an account that must be taken.
func (o *office) account(login string, more ...func(*Account)) {
	o.t.Helper()
	a := Account{Login: mail.Login(login)}
	for _, f := range more {
		f(&a)
	}
	if p := o.put(PutAccount{a, AnyVersion})[0]; p.Err() != nil {
		o.t.Fatalf("account %s: %v", login, p.Err())
	}
}

func (o *office) domain(name, login string) {
	o.t.Helper()
	if p := o.putDomains(PutDomain{Domain{Name: mail.Domain(name), Login: mail.Login(login)}, AnyVersion})[0]; p.Err() != nil {
		o.t.Fatalf("domain %s: %v", name, p.Err())
	}
}

func (o *office) removeAccount(login string) error {
	return o.change(func(tx kv.Tx) error { return RemoveAccount{mail.Login(login), "tester"}.Apply(tx, o.now) })
}

func (o *office) removeDomain(name string) error {
	return o.change(func(tx kv.Tx) error { return RemoveDomain{mail.Domain(name), "tester"}.Apply(tx, o.now) })
}

func at(addrs ...string) func(*Account) {
	return func(a *Account) {
		for _, s := range addrs {
			a.Addresses = append(a.Addresses, netip.MustParseAddr(s))
		}
	}
}

func alias(names ...string) func(*Account) {
	return func(a *Account) { a.Aliases = names }
}

// audit gives "by action object" of all records.
func (o *office) audit() []AuditRecord {
	o.t.Helper()
	var out []AuditRecord
	var err error
	for r := range o.reader().Audit(0, &err) {
		out = append(out, r)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

func wantKind(t *testing.T, err error, kind mail.Kind, word string) {
	t.Helper()
	if err == nil || mail.KindOf(err) != kind || !strings.Contains(err.Error(), word) {
		t.Fatalf("got %v (%v), want %v with %q", err, mail.KindOf(err), kind, word)
	}
}

func TestAnAccountIsWrittenAndReadBack(t *testing.T) {
	o := newOffice(t)
	p := o.put(PutAccount{Account: Account{
		Login: "Jansen", Addresses: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.10")},
		Contact: "Jan@Example.NL", Route: Route{Host: "Mail.Jansen.Example", Port: 2525}, Aliases: []string{"Info"},
	}})[0]
	if p != (Put{Version: 1, Created: true}) {
		t.Fatalf("put: %+v", p)
	}
	a, err := o.reader().Account("jansen")
	if err != nil || a == nil {
		t.Fatal(a, err)
	}
	got := fmt.Sprintf("%s %s %s %s %s %s %s %v %d", a.Login, a.Addresses, a.Contact, a.Route, a.Aliases, a.Plan, a.Locale, a.Created, a.Version)
	want := "jansen [192.0.2.10] Jan@example.nl mail.jansen.example:2525 [info] free en 2000000 1"
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if none, err := o.reader().Account("pietersen"); none != nil || err != nil {
		t.Fatal(none, err)
	}
}

func TestAWriterWhoSawAnOlderVersionIsRefused(t *testing.T) {
	o := newOffice(t)
	o.account("jansen")
	wantKind(t, o.put(PutAccount{Account{Login: "jansen"}, 0})[0].Err(), mail.Exists, "there already")
	if p := o.put(PutAccount{Account{Login: "jansen", Quota: 5}, 1})[0]; p != (Put{Version: 2}) {
		t.Fatalf("%+v", p)
	}
	wantKind(t, o.put(PutAccount{Account{Login: "jansen", Quota: 6}, 1})[0].Err(), mail.Conflict, "version 2, not 1")
	wantKind(t, o.put(PutAccount{Account{Login: "nobody"}, 3})[0].Err(), mail.NotFound, "nobody")
	a, _ := o.reader().Account("jansen")
	if a.Quota != 5 || a.Created != 2_000_000 || a.Changed <= a.Created {
		t.Fatalf("%+v", a)
	}
}

func TestWritingTheSameAgainChangesNothing(t *testing.T) {
	o := newOffice(t)
	o.account("jansen", at("192.0.2.1"), alias("info"))
	o.domain("jansen.example", "jansen")
	o.account("jansen", at("192.0.2.1"), alias("INFO"))
	o.domain("Jansen.Example.", "jansen")
	if n := len(o.audit()); n != 2 {
		t.Fatalf("%d audit records, want 2", n)
	}
	if a, _ := o.reader().Account("jansen"); a.Version != 1 {
		t.Fatalf("version %d", a.Version)
	}
}

func TestOneWrongItemLeavesTheOthers(t *testing.T) {
	o := newOffice(t)
	puts := o.put(PutAccount{Account: Account{Login: "a"}}, PutAccount{Account: Account{Login: "b", Plan: "gold"}}, PutAccount{Account: Account{Login: "c"}})
	if puts[0].Err() != nil || puts[2].Err() != nil {
		t.Fatal(puts)
	}
	wantKind(t, puts[1].Err(), mail.Invalid, `plan "gold"`)
	if len(o.audit()) != 2 {
		t.Fatal(o.audit())
	}
}

func TestWhatIsWrongInAnAccountIsSaid(t *testing.T) {
	many := make([]netip.Addr, MaxAddresses+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	cases := map[string]Account{
		"character":              {Login: "jan sen"},
		"empty":                  {},
		"locale":                 {Login: "j", Locale: "fr"},
		"access":                 {Login: "j", Access: "cable"},
		"fixed addresses are":    {Login: "j", Addresses: many},
		"given twice":            {Login: "j", Addresses: []netip.Addr{many[0], many[0]}},
		"cannot be a fixed":      {Login: "j", Addresses: []netip.Addr{{}}},
		"local part":             {Login: "j", Aliases: []string{"a@b"}},
		"without quotes":         {Login: "j", Aliases: []string{`"a b"`}},
		"the account's login":    {Login: "j", Aliases: []string{"J"}},
		"contact":                {Login: "j", Contact: "nobody"},
		"quota":                  {Login: "j", Quota: -1},
		"one line":               {Login: "j", Inactive: "not\r\n250 paid"},
		"name the host":          {Login: "j", Route: Route{Port: 25}},
		"TLS policy":             {Login: "j", Route: Route{Host: "h", TLS: "maybe"}},
		"neither an IP address":  {Login: "j", Route: Route{Host: "192.0.2"}},
		"that mail can be pushe": {Login: "j", Route: Route{Host: "0.0.0.0"}},
	}
	o := newOffice(t)
	for word, a := range cases {
		wantKind(t, o.put(PutAccount{a, AnyVersion})[0].Err(), mail.Invalid, word)
	}
	if len(o.audit()) != 0 {
		t.Fatal("a refused write left an audit record")
	}
}

func TestNamesAndAddressesHaveOneOwner(t *testing.T) {
	o := newOffice(t)
	o.account("jansen", at("192.0.2.1"), alias("info"))
	for word, a := range map[string]Account{
		"alias of account jansen":            {Login: "info"},
		"alias info belongs to account jan":  {Login: "p", Aliases: []string{"Info"}},
		"alias jansen belongs to":            {Login: "p", Aliases: []string{"jansen"}},
		"address 192.0.2.1 belongs to accou": {Login: "p", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	} {
		wantKind(t, o.put(PutAccount{a, AnyVersion})[0].Err(), mail.Exists, word)
	}
	// Within one command too.
	puts := o.put(PutAccount{Account: Account{Login: "x", Aliases: []string{"sales"}}}, PutAccount{Account: Account{Login: "sales"}})
	wantKind(t, puts[1].Err(), mail.Exists, "alias of account x")
	// What is given up can be taken.
	o.account("jansen")
	o.account("p", at("192.0.2.1"), alias("info"))
	if login, _ := o.reader().ByAddress(netip.MustParseAddr("::ffff:192.0.2.1")); login != "p" {
		t.Fatal(login)
	}
}

func TestADomainNeedsItsAccount(t *testing.T) {
	o := newOffice(t)
	wantKind(t, o.putDomains(PutDomain{Domain{Name: "x.example", Login: "nobody"}, 0})[0].Err(), mail.NotFound, "nobody")
	o.account("jansen")
	o.domain("jansen.example", "jansen")
	wantKind(t, o.removeAccount("jansen"), mail.Conflict, "still has domains (1)")
	if err := o.removeDomain("jansen.example"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, o.removeDomain("jansen.example"), mail.NotFound, "jansen.example")
	if err := o.removeAccount("jansen"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, o.removeAccount("jansen"), mail.NotFound, "jansen")
}

func TestAnAccountHasABoundedNumberOfDomains(t *testing.T) {
	o := newOffice(t)
	o.account("jansen")
	if err := o.change(func(tx kv.Tx) error { return setOwnedCount(tx, "jansen", MaxDomains-1) }); err != nil {
		t.Fatal(err)
	}
	o.domain("last.example", "jansen")
	wantKind(t, o.putDomains(PutDomain{Domain{Name: "more.example", Login: "jansen"}, 0})[0].Err(), mail.Limit, "the most there may be")
}

func TestTooLargeACommandIsRefusedWhole(t *testing.T) {
	o := newOffice(t)
	items := make([]PutAccount, MaxBatch+1)
	for i := range items {
		items[i].Account.Login = mail.Login(fmt.Sprint("a", i))
	}
	for _, p := range o.put(items...) {
		wantKind(t, p.Err(), mail.Limit, "501 items")
	}
}

func TestEveryChangeIsAuditedWithBeforeAndAfter(t *testing.T) {
	o := newOffice(t)
	o.account("jansen")
	o.account("jansen", func(a *Account) { a.Route = Route{Host: "mail.jansen.example"} })
	o.domain("jansen.example", "jansen")
	if err := o.removeDomain("jansen.example"); err != nil {
		t.Fatal(err)
	}
	if err := o.removeAccount("jansen"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range o.audit() {
		got = append(got, fmt.Sprintf("%d %s %s %s [%s] [%s]", r.Seq, r.By, r.Action, r.Object, r.Before, r.After))
	}
	const v1 = `{"login":"jansen","plan":"free","locale":"en","version":1}`
	const v2 = `{"login":"jansen","plan":"free","locale":"en","route":"mail.jansen.example","version":2}`
	const d1 = `{"domain":"jansen.example","account":"jansen","version":1}`
	want := []string{
		"1 tester account add account/jansen [] [" + v1 + "]",
		"2 tester account set account/jansen [" + v1 + "] [" + v2 + "]",
		"3 tester domain add domain/jansen.example [] [" + d1 + "]",
		"4 tester domain remove domain/jansen.example [" + d1 + "] []",
		"5 tester account remove account/jansen [" + v2 + "] []",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheAuditKeepsANumberOfRecords(t *testing.T) {
	o := newOffice(t)
	const keep = 10
	for i := range 25 {
		if err := o.change(func(tx kv.Tx) error {
			log := auditLog{tx: tx, now: o.now, keep: keep}
			return log.append(AuditRecord{Action: fmt.Sprint("act ", i+1)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.change(func(tx kv.Tx) error { return AuditRecord{By: "x", Action: "act 26"}.Apply(tx, o.now) }); err != nil {
		t.Fatal(err)
	}
	recs := o.audit()
	if len(recs) != keep+1 || recs[0].Seq != 16 || recs[10].Action != "act 26" || recs[10].At != o.now {
		t.Fatalf("%d records, first %+v", len(recs), recs[0])
	}
	var err error
	var newest []uint64
	for r := range o.reader().AuditNewest(20, &err) {
		newest = append(newest, r.Seq)
	}
	if err != nil || fmt.Sprint(newest) != "[19 18 17 16]" {
		t.Fatal(newest, err)
	}
}

func TestADamagedRowIsReportedAndDoesNotStopAList(t *testing.T) {
	o := newOffice(t)
	o.account("a")
	o.account("b")
	o.account("c")
	if err := o.change(func(tx kv.Tx) error { return tx.Set(accountKey("b"), []byte{0xff}) }); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for range o.reader().Accounts("", &err) {
		n++
	}
	if n != 2 || mail.KindOf(err) != mail.Broken {
		t.Fatal(n, err)
	}
}
