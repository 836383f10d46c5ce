package node

import (
	"fmt"
	"testing"

	"bsmtpd/directory"
	"bsmtpd/mail"
)

type countedDirectory struct {
	asked int
	found directory.Destination
	then  func()
}

func (c *countedDirectory) Lookup(mail.Address) (directory.Destination, error) {
	c.asked++
	found := c.found
	if c.then != nil {
		c.then()
	}
	return found, nil
}

func customer(login mail.Login) directory.Destination {
	return directory.Destination{Kind: directory.Customer, Account: &directory.Account{Login: login}}
}

func TestALookupIsRememberedUntilTheDirectoryChanges(t *testing.T) {
	rows := &countedDirectory{found: customer("jansen")}
	version := uint64(1)
	k := newKnownDomains(rows, func() uint64 { return version })
	look := func(addr mail.Address, login mail.Login, asked int) {
		t.Helper()
		d, err := k.Lookup(addr)
		if err != nil || d.Account.Login != login || rows.asked != asked {
			t.Errorf("%s is for %s after %d look-ups, %v; want %s after %d", addr, d.Account.Login, rows.asked, err, login, asked)
		}
	}
	look("info@jansen.example", "jansen", 1)
	look("sales@jansen.example", "jansen", 1)
	rows.found = customer("pieters")
	look("info@jansen.example", "jansen", 1)
	version++
	look("info@jansen.example", "pieters", 2)
	look("info@jansen.example", "pieters", 2)

	// The directory changes while the rows are read: what was read is old.
	version++
	rows.then = func() { version, rows.found, rows.then = version+1, customer("de-vries"), nil }
	look("info@jansen.example", "pieters", 3)
	look("info@jansen.example", "de-vries", 4)
}

func TestOnlyCustomersDomainsAreRemembered(t *testing.T) {
	rows := &countedDirectory{found: directory.Destination{Kind: directory.Mailbox}}
	k := newKnownDomains(rows, func() uint64 { return 1 })
	for _, kind := range []directory.DestinationKind{directory.Mailbox, directory.NoSuchMailbox, directory.Unknown} {
		rows.found.Kind = kind
		for range 2 {
			if d, err := k.Lookup("a@provider.example"); err != nil || d.Kind != kind {
				t.Errorf("%v, %v instead of %v", d.Kind, err, kind)
			}
		}
	}
	if rows.asked != 6 || len(k.seen) != 0 {
		t.Errorf("%d look-ups, %d remembered", rows.asked, len(k.seen))
	}
	rows.found = customer("jansen")
	for i := range maxKnown + 100 {
		if _, err := k.Lookup(mail.Address(fmt.Sprintf("a@d%d.example", i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.seen) > maxKnown {
		t.Errorf("%d remembered; at most %d", len(k.seen), maxKnown)
	}
}
