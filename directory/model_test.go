package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// TestIndexesKeepInStepWithRows writes and removes at random and compares every
// row of the directory with those that the accounts and domains ask for.
func TestIndexesKeepInStepWithRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := openOffice(t)
		defer o.store.Close()
		accounts := map[mail.Login]Account{}
		domains := map[mail.Domain]mail.Login{}
		logins := []mail.Login{"anna", "bert", "cor", "dirk"}
		names := []string{"info", "sales", "anna", "bert"}
		addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
		doms := []mail.Domain{"a.example", "b.example", "c.example"}

		rt.Repeat(map[string]func(*rapid.T){
			"put account": func(rt *rapid.T) {
				a := Account{
					Login:     rapid.SampledFrom(logins).Draw(rt, "login"),
					Aliases:   rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID).Draw(rt, "aliases"),
					Addresses: rapid.SliceOfNDistinct(rapid.SampledFrom(addrs), 0, 2, rapid.ID).Draw(rt, "addresses"),
				}
				p := o.put(PutAccount{a, AnyVersion})[0]
				if want := !clashes(a, accounts); (p.Err() == nil) != want {
					rt.Fatalf("put %+v: %v, and the model says %v", a, p.Err(), want)
				}
				if p.Err() == nil {
					accounts[a.Login] = a
				}
			},
			"put domain": func(rt *rapid.T) {
				d := Domain{Name: rapid.SampledFrom(doms).Draw(rt, "domain"), Login: rapid.SampledFrom(logins).Draw(rt, "login")}
				p := o.putDomains(PutDomain{d, AnyVersion})[0]
				if _, want := accounts[d.Login]; (p.Err() == nil) != want {
					rt.Fatalf("put %+v: %v, and the model says %v", d, p.Err(), want)
				}
				if p.Err() == nil {
					domains[d.Name] = d.Login
				}
			},
			"remove account": func(rt *rapid.T) {
				login := rapid.SampledFrom(logins).Draw(rt, "login")
				_, want := accounts[login]
				for _, l := range domains {
					want = want && l != login
				}
				err := o.removeAccount(string(login))
				if (err == nil) != want {
					rt.Fatalf("remove %s: %v, and the model says %v", login, err, want)
				}
				if err == nil {
					delete(accounts, login)
				}
			},
			"remove domain": func(rt *rapid.T) {
				name := rapid.SampledFrom(doms).Draw(rt, "domain")
				_, want := domains[name]
				if err := o.removeDomain(string(name)); (err == nil) != want {
					rt.Fatalf("remove %s: %v, and the model says %v", name, err, want)
				}
				delete(domains, name)
			},
			"": func(rt *rapid.T) {
				if got, want := rowsOf(t, o.store), rowsWanted(accounts, domains); got != want {
					rt.Fatalf("rows\n%s\nwanted\n%s", got, want)
				}
			},
		})
	})
}

// clashes reports what CheckAccount or checkTaken must refuse.
func clashes(a Account, accounts map[mail.Login]Account) bool {
	if slices.Contains(a.Aliases, string(a.Login)) {
		return true
	}
	for login, b := range accounts {
		if login == a.Login {
			continue
		}
		if slices.Contains(a.Aliases, string(login)) || slices.Contains(b.Aliases, string(a.Login)) {
			return true
		}
		for _, s := range a.Aliases {
			if slices.Contains(b.Aliases, s) {
				return true
			}
		}
		for _, ip := range a.Addresses {
			if slices.Contains(b.Addresses, ip) {
				return true
			}
		}
	}
	return false
}

// rowsOf lists all rows but the audit's.
func rowsOf(t *testing.T, r kv.Reader) string {
	var out []string
	var err error
	for k, v := range r.Scan([]byte("A"), []byte("z"), &err) {
		switch k[0] {
		case 'A', 'D':
			v = nil
		case 'd':
			v = []byte(fmt.Sprintf("%x", v))
		}
		out = append(out, fmt.Sprintf("%s %s", k, v))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func rowsWanted(accounts map[mail.Login]Account, domains map[mail.Domain]mail.Login) string {
	var out []string
	for login, a := range accounts {
		out = append(out, fmt.Sprintf("A/%s ", login), fmt.Sprintf("l/%s %s", login, login))
		for _, s := range a.Aliases {
			out = append(out, fmt.Sprintf("l/%s %s", s, login))
		}
		for _, ip := range a.Addresses {
			out = append(out, fmt.Sprintf("a/%s %s", ip, login))
		}
	}
	count := map[mail.Login]int{}
	for name, login := range domains {
		count[login]++
		out = append(out, fmt.Sprintf("D/%s ", name), fmt.Sprintf("d/%s/%s ", login, name))
	}
	for login, n := range count {
		out = append(out, fmt.Sprintf("d/%s %016x", login, n))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
