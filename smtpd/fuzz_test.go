package smtpd

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// FuzzSession lets a client say anything. The session must end without a panic,
// give everything back, and answer in whole lines.
func FuzzSession(f *testing.F) {
	f.Add([]byte("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"))
	f.Add([]byte("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@customer.example>\r\nBDAT 3\r\nabcRSET\r\nBDAT 1 LAST\r\nxQUIT\r\n"))
	f.Add([]byte("EHLO a\r\nMAIL FROM:<>\r\nBDAT 99999999\r\nx\r\nSTARTTLS\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		w := newWorld(t)
		n := newPipeNet()
		w.net = n
		w.cfg.GreetWait, w.cfg.MaxMessage = 0, 64<<10
		w.serve()
		here, there := net.Pipe()
		n.queue <- addressed{there, netip.MustParseAddr("192.0.2.1")}
		here.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			here.Write(said)
			here.Write([]byte("\r\n"))
			time.Sleep(time.Millisecond)
			here.Close()
		}()
		heard, _ := io.ReadAll(here)
		if len(heard) < 4 || string(heard[:4]) != "220 " {
			t.Errorf("heard %q", heard)
		}
		w.nothingLeft()
	})
}
