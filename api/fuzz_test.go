package api

import (
	"encoding/json"
	"strings"
	"testing"

	"bsmtpd/api/wire"
)

// FuzzBodies sends what it likes to every call that takes a body: the answer is
// never a bug's, and always JSON lines.
func FuzzBodies(f *testing.F) {
	paths := []string{"POST /accounts", "PUT /accounts/jansen", "PATCH /accounts/jansen", "POST /domains", "PATCH /domains/jansen.example",
		"POST /messages/actions", "POST /queues/retry", "POST /queues/account/jansen/hold", "POST /delivery/suspensions", "POST /logins",
		"POST /import/accounts?format=csv", "POST /import/accounts?format=jsonl"}
	f.Add(uint8(0), `{"login":"a","addresses":["192.0.2.1"],"aliases":["x"],"route":"h:25/verify"}`)
	f.Add(uint8(2), `{"quota":1,"add_addresses":["::1"],"remove_aliases":["x"]}`)
	f.Add(uint8(5), `{"action":"remove","filter":{"sender":"*a*b*","min_age":"3d"},"dry_run":true}`)
	f.Add(uint8(6), `{"queues":["account/jansen","out/x.example"]}`)
	f.Add(uint8(9), `{"login":"jansen","event":"stop","address":"::ffff:1.2.3.4"}`)
	f.Add(uint8(10), "login,domains\na,a.example=h:25\n")
	f.Add(uint8(11), `{"login":"a","domains":[{"domain":"x.example","route":"h"}]}`)
	w := newTown(f)
	w.account("jansen")
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		method, path, _ := strings.Cut(paths[int(which)%len(paths)], " ")
		code, text := do(w.server.admin, method, wire.Prefix+path, body)
		if code == 500 {
			t.Fatalf("%d %s", code, text)
		}
		for line := range strings.Lines(text) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%s is no JSON", line)
			}
		}
	})
}

// FuzzFilter reads filters from queries.
func FuzzFilter(f *testing.F) {
	f.Add("sender=*a*&min_age=3d&state=hold")
	f.Add("after=account/jansen:000000000000G&limit=1")
	w := newTown(f)
	w.account("jansen")
	w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, 0)
	f.Fuzz(func(t *testing.T, query string) {
		if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' || r == '%' }) {
			return // no request line
		}
		if code, text := do(w.server.admin, "GET", wire.Prefix+"/messages?"+query, ""); code >= 500 {
			t.Fatalf("%d %s", code, text)
		}
	})
}
