package strict

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-smtp"
)

// Sessions over loopback whose messages are thrown away: what a Conn costs.
func BenchmarkSessions(b *testing.B) {
	for _, tt := range []struct {
		name  string
		bare  bool
		body  int
		chunk bool
		n     int
	}{
		{"strict-4KiB", false, 4096, false, 64},
		{"bare-4KiB", true, 4096, false, 64},
		{"strict-4KiB-BDAT", false, 4096, true, 64},
		{"bare-4KiB-BDAT", true, 4096, true, 64},
		{"strict-1MiB", false, 1 << 20, false, 4},
		{"bare-1MiB", true, 1 << 20, false, 4},
		{"strict-1MiB-BDAT", false, 1 << 20, true, 4},
		{"bare-1MiB-BDAT", true, 1 << 20, true, 4},
	} {
		b.Run(tt.name, func(b *testing.B) { sendAll(b, benchServer(b, tt.bare), tt.n, tt.body, tt.chunk) })
	}
}

type nothing struct{ conn *Conn }

func (nothing) NewSession(c *smtp.Conn) (smtp.Session, error) {
	conn, _ := c.Conn().(*Conn)
	return nothing{conn}, nil
}
func (nothing) Reset()                               {}
func (nothing) Logout() error                        { return nil }
func (nothing) Mail(string, *smtp.MailOptions) error { return nil }
func (nothing) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (n nothing) Data(r io.Reader) error {
	if n.conn != nil {
		r = n.conn.Body()
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

type strictListener struct {
	net.Listener
	cfg  Config
	pool Pool
}

func (l *strictListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return New(c, &l.cfg, &l.pool, Ignore{}), nil
}

func benchServer(b *testing.B, bare bool) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	addr := l.Addr().String()
	s := newServer(nothing{})
	if bare {
		s.MaxLineLength = 2000
	} else {
		l = &strictListener{Listener: l, cfg: Config{Hostname: "mx.example"}}
	}
	go s.Serve(l)
	b.Cleanup(func() { s.Close() })
	return addr
}

func sendAll(b *testing.B, addr string, sessions, size int, chunk bool) {
	body := "Subject: long\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
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
				io.WriteString(c, s)
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
			say(hello)
			for left.Add(-1) >= 0 && !b.Failed() {
				say("MAIL FROM:<sender@world.example>\r\n")
				say("RCPT TO:<a@customer.example>\r\n")
				if chunk {
					say("BDAT " + strconv.Itoa(len(body)) + " LAST\r\n" + body)
				} else {
					say("DATA\r\n")
					say(body + ".\r\n")
				}
			}
			say("QUIT\r\n")
		})
	}
	wg.Wait()
}

func BenchmarkContent(b *testing.B) {
	body := []byte(strings.Repeat(strings.Repeat("x", 70)+"\r\n", 900))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		k := content{dots: true, maxLine: 998, maxSize: 1 << 30, bol: true}
		k.scan(body)
	}
}
