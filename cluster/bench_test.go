package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// BenchmarkEnqueue accepts messages for one account on a real disk, 64 at a
// time: what the SMTP side can get at best.
func BenchmarkEnqueue(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(mail.Size(size)), func(b *testing.B) {
			n, err := Open(host.System(), Options{Dir: filepath.Join(b.TempDir(), "data"), Node: "n1",
				Settings: DefaultSettings(), Registry: metric.New(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close()
			if err := n.WaitReady(b.Context()); err != nil {
				b.Fatal(err)
			}
			_, err = n.PutAccounts(b.Context(), directory.PutAccounts{Items: []directory.PutAccount{
				{Account: directory.Account{Login: "jansen", Quota: 1 << 50}}}})
			if err != nil {
				b.Fatal(err)
			}
			raw := make([]byte, size)
			rand.Read(raw)
			body := base64.StdEncoding.EncodeToString(raw)[:size] // as attachments are: it does not compress
			b.SetBytes(int64(size))
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m := spool.Enqueue{Envelope: mail.Envelope{From: "a@example.net"}, Size: int64(size),
						Targets: []spool.Target{{Queue: "account/jansen", To: []mail.Recipient{{Address: "info@jansen.example"}}}}}
					if got, err := n.Enqueue(b.Context(), m, strings.NewReader(body)); err != nil || got.ID == 0 {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
