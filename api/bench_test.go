package api

import (
	"fmt"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// BenchmarkSummary is "queue summary" over 10,000 accounts with 10 messages each.
func BenchmarkSummary(b *testing.B) {
	w := newTown(b)
	const accounts, each = 10_000, 10
	for i := range accounts {
		login := mail.Login(fmt.Sprintf("a%06d", i))
		if err := w.apply(func(m *spool.Moves) error {
			if _, err := (directory.PutAccounts{Items: []directory.PutAccount{{Account: directory.Account{Login: login}}}}).Apply(m.Tx, m.Now); err != nil {
				return err
			}
			for j := range each {
				m.Now = mail.At(time.Now().Add(-time.Duration(j) * time.Hour))
				if _, err := m.Enqueue(spool.Enqueue{Envelope: mail.Envelope{From: "sender@shop.example"}, Size: 4, Targets: []spool.Target{
					{Queue: spool.AccountQueue(login), To: []mail.Recipient{{Address: mail.Address("x@" + login + ".example")}}}}}, []byte("a\r\n\n")); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.store.Flush(); err != nil {
		b.Fatal(err)
	}
	for _, ages := range []bool{true, false} {
		b.Run(fmt.Sprintf("ages=%v", ages), func(b *testing.B) {
			for b.Loop() {
				n := 0
				for _, err := range w.admin.Queues(w.ctx(), ages, false, client.Page{}) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != accounts {
					b.Fatal(n)
				}
			}
		})
	}
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if code, text := do(w.server.admin, "GET", "/api/v1/messages?sender=nobody@x.example", ""); code != 200 || text != "" {
				b.Fatal(code, text)
			}
		}
	})
}
