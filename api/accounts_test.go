package api

import (
	"fmt"
	"strings"
	"testing"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

func ptr[T any](v T) *T { return &v }

func TestAnAccountThroughItsLife(t *testing.T) {
	w := newTown(t)
	put, err := w.admin.AddAccount(w.ctx(), wire.Account{Login: "Jansen", Addresses: []string{"192.0.2.10"}, Route: "mail.jansen.example:2525/require", Aliases: []string{"info"}})
	if err != nil || put != (wire.Put{Version: 1, Created: true}) {
		t.Fatal(put, err)
	}
	_, err = w.admin.AddAccount(w.ctx(), wire.Account{Login: "jansen"})
	wantKind(t, err, mail.Exists, "jansen is there already")

	put, err = w.admin.SetAccount(w.ctx(), "jansen", wire.AccountPatch{Plan: ptr("paid"), Quota: ptr(int64(1 << 30)), AddAddresses: []string{"192.0.2.11", "192.0.2.10"},
		RemoveAliases: []string{"INFO"}, AddAliases: []string{"Sales"}, Route: ptr("")})
	if err != nil || put.Version != 2 {
		t.Fatal(put, err)
	}
	w.mail("account/jansen", "a@b.example", "x@jansen.example", 1000, 0)
	got, err := w.admin.Account(w.ctx(), "JANSEN")
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintln(got.Login, got.Addresses, got.Plan, got.Quota, got.Route, got.Aliases, got.Version, got.QuotaBytes, got.UsedBytes, got.Messages); s !=
		"jansen [192.0.2.10 192.0.2.11] paid 1073741824  [sales] 2 1073741824 1000 1\n" {
		t.Fatal(s)
	}
	if _, err := w.admin.SetAccount(w.ctx(), "jansen", wire.AccountPatch{Addresses: &[]string{}, Inactive: ptr("not paid")}); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.admin.Account(w.ctx(), "jansen"); len(got.Addresses) != 0 || got.Inactive != "not paid" || got.Plan != "paid" {
		t.Fatalf("%+v", got)
	}
	if err := w.admin.RemoveAccount(w.ctx(), "jansen"); err != nil {
		t.Fatal(err)
	}
	_, err = w.admin.Account(w.ctx(), "jansen")
	wantKind(t, err, mail.NotFound, "there is no account jansen")
	wantKind(t, w.admin.RemoveAccount(w.ctx(), "jansen"), mail.NotFound, "jansen")
	_, err = w.admin.SetAccount(w.ctx(), "jansen", wire.AccountPatch{})
	wantKind(t, err, mail.NotFound, "jansen")
}

func TestReplacingAnAccountMindsItsVersion(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	if put, err := w.admin.PutAccount(w.ctx(), wire.Account{Login: "jansen", Quota: 5, Version: 1}); err != nil || put.Version != 2 {
		t.Fatal(put, err)
	}
	_, err := w.admin.PutAccount(w.ctx(), wire.Account{Login: "jansen", Quota: 6, Version: 1})
	wantKind(t, err, mail.Conflict, "version 2, not 1")
	if put, err := w.admin.PutAccount(w.ctx(), wire.Account{Login: "jansen", Quota: 7}); err != nil || put.Version != 3 {
		t.Fatal(put, err)
	}
	code, text := do(w.server.admin, "PUT", "/api/v1/accounts/jansen", `{"login":"other"}`)
	if code != 422 || !strings.Contains(text, "keeps its login") {
		t.Fatal(code, text)
	}
}

func TestWrongFieldsAreNamed(t *testing.T) {
	w := newTown(t)
	for word, a := range map[string]wire.Account{
		"character":        {Login: "jan sen"},
		"not an IP addres": {Login: "j", Addresses: []string{"1.2.3"}},
		"gold":             {Login: "j", Plan: "gold"},
		"port":             {Login: "j", Route: "host:x"},
		"contact":          {Login: "j", Contact: "me"},
	} {
		_, err := w.admin.AddAccount(w.ctx(), a)
		wantKind(t, err, mail.Invalid, word)
	}
}

func TestAListOfManyAccountsHasACursor(t *testing.T) {
	w := newTown(t)
	var items []directory.PutAccount
	for i := range 2*pageRows + 50 {
		items = append(items, directory.PutAccount{Account: directory.Account{Login: mail.Login(fmt.Sprintf("a%04d", i))}})
	}
	if _, err := w.PutAccounts(w.ctx(), directory.PutAccounts{Items: items}); err != nil {
		t.Fatal(err)
	}
	all := collect(t, w.admin.Accounts(w.ctx(), client.Page{}))
	if len(all) != len(items) || all[len(all)-1].Login != "a0449" {
		t.Fatal(len(all))
	}
	some := collect(t, w.admin.Accounts(w.ctx(), client.Page{After: "a0210", Limit: 3}))
	if len(some) != 3 || some[0].Login != "a0211" {
		t.Fatal(some)
	}
}

func TestHostileBodiesAreRefusedWithAReason(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	for _, c := range []struct {
		method, path, body string
		code               int
		word               string
	}{
		{"POST", "/accounts", `{"login":"x","colour":"red"}`, 422, "colour"},
		{"POST", "/accounts", `{"login":5}`, 422, "login"},
		{"POST", "/accounts", `{"login":"x","addresses":"1.2.3.4"}`, 422, "addresses"},
		{"POST", "/accounts", `{"login":"x","quota":"20MiB"}`, 422, "quota"},
		{"POST", "/accounts", `{"login":`, 400, "unexpected end"},
		{"POST", "/accounts", ``, 400, "body"},
		{"POST", "/accounts", `[]`, 422, "object"},
		{"POST", "/accounts", `{"login":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "too large"},
		{"POST", "/accounts", strings.Repeat("[", 100_000), 400, ""},
		{"POST", "/logins", `{"login":"jansen","event":"dance"}`, 422, "event"},
		{"POST", "/logins", `{"login":"jansen","address":"no"}`, 422, "IP address"},
		{"POST", "/messages/actions", `{"action":"eat","ids":["0"]}`, 422, "action"},
		{"POST", "/messages/actions", `{"action":"remove","ids":["zzz"]}`, 422, "queue ID"},
		{"POST", "/messages/actions", `{"action":"remove"}`, 422, "exactly one"},
		{"GET", "/accounts?limit=-1", "", 422, "limit"},
		{"GET", "/accounts?limit=x", "", 422, "limit"},
		{"GET", "/messages?sendr=x", "", 422, "sendr"},
		{"GET", "/messages?min_age=old", "", 422, "not an age"},
		{"GET", "/messages?state=lost", "", 422, "state"},
		{"GET", "/messages?after=x", "", 422, "QUEUE:ID"},
		{"GET", "/messages/nonsense", "", 422, "queue ID"},
		{"GET", "/accounts/a%20b", "", 422, "character"},
		{"GET", "/queues/cellar/x", "", 422, "kind"},
		{"GET", "/nowhere", "", 404, "openapi.json"},
		{"PUT", "/accounts", "{}", 404, "openapi.json"},
		{"POST", "/delivery/suspensions", `{"scope":"some"}`, 422, "use all"},
		{"POST", "/queues/account/jansen/hold", `{"until":"2001-01-01T00:00:00Z"}`, 422, "past"},
	} {
		code, text := w.rawAdmin(c.method, wire.Prefix+c.path, c.body)
		if code != c.code || !strings.Contains(text, c.word) || !strings.Contains(text, `"kind":"`) {
			t.Errorf("%s %s %.40s: got %d %s; want %d with %q", c.method, c.path, c.body, code, text, c.code, c.word)
		}
	}
}

// rawAdmin is raw on the admin door.
func (w *town) rawAdmin(method, path, body string) (int, string) {
	w.t.Helper()
	return do(w.server.admin, method, path, body)
}
