package smtpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// Sessions that send messages to a queue that only reads them.
func BenchmarkSessions(b *testing.B) {
	const n = 64
	b.Run("4KiB", func(b *testing.B) { sendAll(b, benchServer(b), n, lines(4096)) })
	b.Run("1MiB", func(b *testing.B) { sendAll(b, benchServer(b), 4, lines(1<<20)) })
}

type nullQueue struct{ n atomic.Uint64 }

func (q *nullQueue) Enqueue(_ context.Context, m spool.Enqueue, r io.Reader) (spool.Enqueued, error) {
	if n, err := io.Copy(io.Discard, r); n != m.Size || err != nil {
		return spool.Enqueued{}, fmt.Errorf("read %d of %d: %w", n, m.Size, err)
	}
	return spool.Enqueued{ID: mail.NewID(q.n.Add(1), 0), Targets: make([]spool.TargetResult, 1)}, nil
}

func (q *nullQueue) Lookup(mail.Address) (directory.Destination, error) {
	return directory.Destination{Kind: directory.Customer, Account: &directory.Account{Login: "jansen"}}, nil
}

func (q *nullQueue) Of(mail.Login) (quota.Usage, error) { return quota.Usage{}, nil }

func benchServer(b *testing.B) string {
	q := &nullQueue{}
	cfg := defaults(b)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := New(cfg, Deps{Host: host.System(), TempDir: b.TempDir(), Queue: q, Directory: q, Usage: q,
		Limits: func() directory.Limits { return directory.Limits{Quota: 1 << 40} }, Admit: func() error { return nil },
		Log: log, MailLog: metric.NewMailLog(log), Metrics: metric.New()})
	check(b, err)
	check(b, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	return s.Addrs()[0].String()
}

func sendAll(b *testing.B, addr string, sessions int, body string) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(len(body)))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			say := func(s string) {
				if s != "" {
					io.WriteString(c, s)
				}
				for {
					line, err := r.ReadSlice('\n')
					if err != nil || line[0] > '3' {
						b.Errorf("heard %q: %v", line, err)
						return
					}
					if line[3] == ' ' {
						return
					}
				}
			}
			say("")
			say("EHLO client.example\r\n")
			text := body + ".\r\n"
			for left.Add(-1) >= 0 && !b.Failed() {
				say("MAIL FROM:<sender@world.example>\r\n")
				say("RCPT TO:<a@customer.example>\r\n")
				say("DATA\r\n")
				say(text)
			}
			say("QUIT\r\n")
		})
	}
	wg.Wait()
}
