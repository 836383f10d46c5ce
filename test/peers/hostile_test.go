package peers

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// open says everything up to the message itself, which may follow.
func (c *caller) open(to string) *caller {
	c.t.Helper()
	c.hello()
	c.expect("250 2.1.0", "MAIL FROM:<anna@pietersen.example>")
	c.expect("250 2.1.5", "RCPT TO:<"+to+">")
	return c
}

func TestMalformedSMTPIsAnsweredAndNothingIsKept(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	for _, c := range []struct {
		name string
		say  []string // "=REPLY" checks the reply to what was said before it
		gone bool     // the server hangs up
	}{
		{name: "not a command", say: []string{"HALLO", "=500 5.5.2", "EHLO", "=501 5.5.2", "EHLO -_-!", "=501 5.5.2"}},
		{name: "out of order", say: []string{"MAIL FROM:<a@b.example>", "=503 5.5.1", "EHLO x", "=250-", "RCPT TO:<info@jansen.example>", "=503 5.5.1",
			"DATA", "=503 5.5.1", "MAIL FROM:<a@b.example>", "=250", "DATA", "=554 5.5.1", "MAIL FROM:<a@b.example>", "=503 5.5.1"}},
		{name: "not an address", say: []string{"EHLO x", "=250-", "MAIL FROM:<a@b.example", "=501 5.5.2", "MAIL TO:<a@b.example>", "=501 5.5", "MAIL FROM:<a@@b.example>", "=501",
			"MAIL FROM:<a@b.example> SIZE=many", "=501 5.5.4", "MAIL FROM:<a@b.example> COLOUR=red", "=555 5.5.4",
			"MAIL FROM:<>", "=250", "RCPT TO:<>", "=501 5.5.2", "RCPT TO:<@jansen.example>", "=501", "RCPT TO:<info@>", "=501"}},
		{name: "long line", say: []string{"EHLO " + strings.Repeat("x", 5000), "=500 5.5.2"}},
		{name: "endless line", say: []string{strings.Repeat("x", 200_000), "=500 5.5.2"}, gone: true},
		{name: "octets of a program", say: []string{"\x16\x03\x01\x00\x00\x7f\xff", "=500 5.5.2", "EHLO x\x00y", "=500 5.5.2"}},
		{name: "a browser", say: []string{"GET / HTTP/1.1", "=554 5.5.1"}, gone: true},
		{name: "no patience", say: strings.Split(strings.Repeat("HALLO,=500 5.5.2,", 19)+"HALLO,=500 5.5.2,=421 4.7.0", ","), gone: true},
		{name: "chunk of no size", say: []string{"EHLO x", "=250-", "MAIL FROM:<>", "=250", "RCPT TO:<info@jansen.example>", "=250", "BDAT x LAST", "=501 5.5.4"}, gone: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := call(t, s.smtp())
			for _, w := range c.say {
				if want, ok := strings.CutPrefix(w, "="); !ok {
					k.send(w + "\r\n")
				} else if got := k.reply(); !strings.HasPrefix(got, want) {
					t.Errorf("answered %q, want %s", got, want)
				}
			}
			if c.gone {
				if got := k.reply(); got != "" {
					t.Errorf("goes on with %q", got)
				}
			} else {
				k.expect("250", "NOOP")
			}
		})
	}
	if q := s.queue("jansen"); q.Messages != 0 {
		t.Errorf("%d messages were kept", q.Messages)
	}
	s.works()
}

// Octets that two servers could read differently are refused whole: they are how
// mail is smuggled past a filter.
func TestSmuggledMailIsRefusedWhole(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	const second = "MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<info@jansen.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"
	for name, c := range map[string]struct{ body, want string }{
		"bare LF":           {"Subject: one\r\n\r\nline\nline\r\n.\r\n", "550 5.5.2"},
		"bare CR":           {"Subject: one\r\n\r\nline\rline\r\n.\r\n", "550 5.5.2"},
		"LF . LF":           {"Subject: one\r\n\r\nline\n.\n" + second, "550 5.5.2"},
		"LF . CRLF":         {"Subject: one\r\n\r\nline\n.\r\n" + second, "550 5.5.2"},
		"CRLF . LF":         {"Subject: one\r\n\r\nline\r\n.\n" + second, "550 5.5.2"},
		"CR . CR":           {"Subject: one\r\n\r\nline\r.\r" + second, "550 5.5.2"},
		"NUL":               {"Subject: one\r\n\r\nnothing: \x00\r\n.\r\n", "550 5.6.0"},
		"a line of 20 KB":   {"Subject: one\r\n\r\n" + strings.Repeat("x", 20_000) + "\r\n.\r\n", "550 5.6.0"},
		"a header of 1 MB":  {strings.Repeat("X-Field: "+strings.Repeat("x", 900)+"\r\n", 1100) + "\r\n.\r\n", "552 5.3.4"},
		"101 Received":      {strings.Repeat("Received: from a by b; Mon, 2 Jan 2006 15:04:05 +0000\r\n", 101) + "\r\n.\r\n", "554 5.4.6"},
		"LF in the chunked": {"", "550 5.5.2"},
	} {
		t.Run(name, func(t *testing.T) {
			k := call(t, s.smtp()).open("info@jansen.example")
			if c.body == "" {
				k.send("BDAT 10 LAST\r\nSubject:\n\n")
			} else {
				k.expect("354", "DATA")
				k.send(c.body)
			}
			if got := k.reply(); !strings.HasPrefix(got, c.want) {
				t.Errorf("answered %q, want %s", got, c.want)
			}
			k.expect("250", "NOOP") // and nothing stands between
		})
	}
	if q := s.queue("jansen"); q.Messages != 0 {
		t.Errorf("%d messages were kept", q.Messages)
	}
	s.works()
}

func TestWhoSpeaksFirstIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, settings{"smtpd.greet_skip": []string{}, "smtpd.greet_wait": "400ms"})
	rude := dial(t, s.smtp())
	rude.send("EHLO spam.example\r\nMAIL FROM:<a@b.example>\r\n")
	if got := rude.reply(); !strings.HasPrefix(got, "554 5.5.1") {
		t.Errorf("answered %q", got)
	}
	if got := rude.reply(); got != "" {
		t.Errorf("goes on with %q", got)
	}
	s.works()
}

// A client that goes away in the middle of a message leaves nothing behind.
func TestAClientThatVanishesLeavesNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 20_000) // larger than what stays in memory
	for name, body := range map[string]string{
		"in a small message": "DATA\r\nSubject: one\r\n\r\nhalf a li",
		"in a large one":     "DATA\r\nSubject: one\r\n\r\n" + large,
		"in a chunk":         "BDAT 1000000 LAST\r\n" + large[:500_000],
		"between chunks":     "BDAT 720000\r\n" + large[:720_000],
		"before the end":     "DATA\r\nSubject: one\r\n\r\n" + large + "\r\n.",
	} {
		for _, how := range []string{"politely", "with a reset"} {
			k := call(t, s.smtp()).open("info@jansen.example")
			k.send(body)
			if how != "politely" {
				k.conn.(*net.TCPConn).SetLinger(0)
			}
			if err := k.conn.Close(); err != nil {
				t.Error(name, err)
			}
		}
	}
	tmp := filepath.Join(s.data, "tmp")
	until(t, "temporary files are gone", func() bool {
		names, err := os.ReadDir(tmp)
		return err != nil || len(names) == 0
	})
	if q := s.queue("jansen"); q.Messages != 0 {
		t.Errorf("%d messages were kept", q.Messages)
	}
	s.works()
}

// memory is the most memory that the server has had, in MiB; 0: the system does
// not tell.
func (s *server) memory() int {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Logf("memory is not looked at: %v", err)
		return 0
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(peak)
	if len(fields) == 0 {
		s.t.Fatalf("no VmHWM in %s", status)
	}
	kb, err := strconv.Atoi(fields[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb >> 10
}

func TestAMessageOf50MBIsTakenAndOneOctetMoreIsNot(t *testing.T) {
	t.Parallel()
	const limit = 50_000_000
	k := newSink(t)
	s := serve(t, settings{"quota.default": "1GiB"})
	s.customer("jansen", k.addr)
	line := []byte(strings.Repeat("0123456789", 9) + "1234567\r\n") // 99 octets
	body := append([]byte("Subject: large\r\n\r\n"), bytes.Repeat(line, limit/len(line)+1)...)
	body = append(body[:limit-2], "\r\n"...)

	c := call(t, s.smtp()).hello()
	c.expect("552 5.3.4", "MAIL FROM:<anna@pietersen.example> SIZE=50000001")
	l := letter{from: "anna@pietersen.example", to: []string{"info@jansen.example"}, params: " SIZE=50000000", body: body}
	taken(t, c.data(l))
	if got := k.next().body; sha256.Sum256(got[max(0, len(got)-limit):]) != sha256.Sum256(body) {
		t.Errorf("%d octets came, not the %d that were sent", len(got), limit)
	}
	l.params = ""
	l.body = append(body[:limit-2:limit-2], "x\r\n"...) // a client that does not tell
	if got := c.data(l); !strings.HasPrefix(got, "552 5.3.4") {
		t.Errorf("50 MB and an octet by DATA: %q", got)
	}
	c.expect("250", "NOOP")
	b := call(t, s.smtp()).open("info@jansen.example")
	b.send("BDAT 50000001 LAST\r\n")
	b.write(l.body)
	if got := b.reply(); !strings.HasPrefix(got, "552 5.3.4") {
		t.Errorf("50 MB and an octet by BDAT: %q", got)
	}
	b.expect("250", "NOOP")
	huge := call(t, s.smtp()).open("info@jansen.example")
	huge.send("BDAT 4000000000000 LAST\r\nx")
	if got := huge.reply(); !strings.HasPrefix(got, "552 5.3.4") || huge.reply() != "" {
		t.Errorf("a chunk of 4 TB: %q, and the connection stays", got)
	}
	if mib := s.memory(); mib > 600 {
		t.Errorf("the server had %d MiB at one time", mib)
	} else {
		t.Logf("the server had %d MiB at most", mib)
	}
	k.none()
	s.works()
}

// 10,000 recipients: a thousand at a time are taken, for the others the client
// comes again, and each gets the message once.
func TestTenThousandRecipientsGetTheMessageOnce(t *testing.T) {
	t.Parallel()
	const all = 10_000
	k := newSink(t)
	s := serve(t, nil)
	s.customer("jansen", k.addr)
	c := call(t, s.smtp()).hello()
	next, transactions := 0, 0
	for next < all {
		var wire bytes.Buffer
		wire.WriteString("MAIL FROM:<anna@pietersen.example>\r\n")
		for i := next; i < all; i++ {
			fmt.Fprintf(&wire, "RCPT TO:<r%d@jansen.example>\r\n", i)
		}
		go c.write(wire.Bytes()) // replies must be read meanwhile
		if got := c.reply(); !strings.HasPrefix(got, "250 2.1.0") {
			t.Fatalf("MAIL: %q", got)
		}
		good := 0
		for i := next; i < all; i++ {
			got := c.reply()
			switch ok := strings.HasPrefix(got, "250 2.1.5"); {
			case ok && good == i-next:
				good++
			case ok:
				t.Fatalf("recipient %d after a refused one: %q", i, got)
			case !strings.HasPrefix(got, "452 4.5.3"):
				t.Fatalf("recipient %d: %q", i, got)
			}
		}
		if want := min(1000, all-next); good != want {
			t.Fatalf("%d recipients were taken in one transaction, want %d", good, want)
		}
		c.expect("354", "DATA")
		taken(t, c.say("Subject: to all\r\n\r\n."))
		next += good
		transactions++
	}
	s.drained("jansen")
	times := map[string]int{}
	for len(k.got) > 0 {
		d := <-k.got
		if len(d.to) > 100 {
			t.Errorf("%d recipients in one transaction to the customer", len(d.to))
		}
		for _, to := range d.to {
			times[to]++
		}
	}
	for to, n := range times {
		if n != 1 {
			t.Errorf("%s got it %d times", to, n)
		}
	}
	if len(times) != all {
		t.Errorf("%d recipients got it, want %d", len(times), all)
	}
	t.Logf("%d transactions in", transactions)
	s.works()
}

// Clients that send an octet now and then hold connections, and no more than that:
// others are served meanwhile, and each of them is sent away in the end.
func TestASlowLorisIsSentAway(t *testing.T) {
	t.Parallel()
	s := serve(t, settings{"smtpd.idle_timeout": "1s", "smtpd.data_grace": "1s", "smtpd.min_rate": 1000, "smtpd.session_timeout": "20s",
		"smtpd.max_per_address": 40})
	s.customer("jansen", "127.0.0.1:1")
	gone := make(chan string, 30)
	drip := func(k *caller, octets string) {
		go func() {
			for i := 0; ; i++ {
				if err := k.write([]byte{octets[i%len(octets)]}); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		}()
		go func() { gone <- k.reply() }()
	}
	for range 10 {
		drip(call(t, s.smtp()), "NOOP ") // one command line, for ever
		k := call(t, s.smtp()).open("info@jansen.example")
		k.expect("354", "DATA")
		drip(k, "slowly\r\n")                                       // a message of whole lines, for ever
		go func(k *caller) { gone <- k.reply() }(call(t, s.smtp())) // silence
	}
	s.works()
	for range 30 {
		select {
		case got := <-gone:
			if !strings.HasPrefix(got, "421 4.4.2") {
				t.Errorf("a slow client was told %q", got)
			}
		case <-time.After(patience):
			t.Fatal("a slow client is still there")
		}
	}
	if q := s.queue("jansen"); q.Messages != 0 {
		t.Errorf("%d messages were kept", q.Messages)
	}
}

func TestTooManyConnectionsAreToldSo(t *testing.T) {
	t.Parallel()
	s := serve(t, settings{"smtpd.max_per_address": 5})
	var some []*caller
	for range 5 {
		some = append(some, call(t, s.smtp()))
	}
	if got := dial(t, s.smtp()).reply(); !strings.HasPrefix(got, "421 4.7.0") {
		t.Errorf("the sixth connection: %q", got)
	}
	for _, k := range some {
		k.expect("221", "QUIT")
	}
	until(t, "there is room again", func() bool { return strings.HasPrefix(dial(t, s.smtp()).reply(), "220 ") })
	s.works()
}
