package directory

import (
	"strings"
	"testing"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// A damaged account stays refused until somebody writes all of it anew; then
// nothing of what it was is left in the indexes.
func TestADamagedAccountIsWrittenAnewAsAWhole(t *testing.T) {
	o := openOffice(t)
	o.now = mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	o.account("anna", at("192.0.2.1", "192.0.2.2"), alias("info", "sales"))
	o.account("bert", at("192.0.2.3"))
	o.domain("a.example", "anna")
	spoil := func() {
		if err := o.change(func(tx kv.Tx) error { return tx.Set(accountKey("anna"), []byte{0xff}) }); err != nil {
			t.Fatal(err)
		}
	}
	spoil()
	refused := func(what string, err error) {
		t.Helper()
		if mail.KindOf(err) != mail.Broken || !strings.Contains(err.Error(), "account anna is damaged") || !strings.Contains(err.Error(), "account import") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := o.reader().Account("anna")
	refused("read", err)
	_, err = o.reader().Lookup("info@a.example")
	refused("look up", err)
	refused("remove", o.removeAccount("anna"))

	// One damaged account does not keep the others of its batch from being written.
	puts := o.put(PutAccount{Account{Login: "anna"}, 1}, PutAccount{Account{Login: "anna"}, 0}, PutAccount{Account{Login: "cor"}, 0})
	refused("set", puts[0].Err())
	refused("add", puts[1].Err())
	if puts[2].Err() != nil {
		t.Error(puts[2].Err())
	}

	// What cannot be written leaves the row for whoever can mend it.
	clash := Account{Login: "anna"}
	at("192.0.2.3")(&clash)
	if p := o.put(PutAccount{clash, AnyVersion})[0]; mail.KindOf(p.Err()) != mail.Exists {
		t.Errorf("clash: %v", p.Err())
	}
	_, err = o.reader().Account("anna")
	refused("read", err)

	anew := Account{Login: "anna"}
	at("192.0.2.2")(&anew)
	alias("sales")(&anew)
	p := o.put(PutAccount{anew, AnyVersion})[0]
	if p.Err() != nil || p.Version < 1_000_000 {
		t.Fatalf("%+v", p)
	}
	accounts := map[mail.Login]Account{"anna": anew, "cor": {}}
	bert := Account{}
	at("192.0.2.3")(&bert)
	accounts["bert"] = bert
	var rows []string
	for _, r := range strings.Split(rowsOf(t, o.store), "\n") {
		if !strings.HasPrefix(r, kv.AsidePrefix) {
			rows = append(rows, r)
		}
	}
	if got, want := strings.Join(rows, "\n"), rowsWanted(accounts, map[mail.Domain]mail.Login{"a.example": "anna"}); got != want {
		t.Errorf("rows\n%s\nwanted\n%s", got, want)
	}
	if v, err := o.store.Get([]byte(kv.AsidePrefix + "A/anna")); err != nil || v == nil {
		t.Errorf("nothing was set aside: %v", err)
	}
	if p := o.put(PutAccount{Account{Login: "anna"}, 1})[0]; mail.KindOf(p.Err()) != mail.Conflict {
		t.Errorf("a writer who knows the lost version: %v", p.Err())
	}
}
