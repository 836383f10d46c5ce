package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the customer's Postfix offers decides how mail is pushed to it, and what
// cannot be pushed.
func TestPushesUseWhatPostfixOffers(t *testing.T) {
	t.Parallel()
	p := newPostfix(t)
	p.start()
	s := serve(t, nil)
	s.customer("jansen", p.route("bdat"))
	s.customer("devries", p.route("ascii"))
	s.customer("bakker", p.route("tls"))
	s.customer("smit", p.route("data")+"/require")
	s.customer("pietersen", "127.0.0.1:1")

	c := call(t, s.smtp()).hello()
	taken(t, c.data(text("by TLS", "tls@bakker.example")))
	taken(t, c.data(text("no TLS there", "info@smit.example")))
	for _, login := range []string{"jansen", "devries"} {
		l := text("Grüße", "jörg@"+login+".example")
		l.params = " BODY=8BITMIME SMTPUTF8"
		taken(t, c.bdat(l))
	}
	s.drained("jansen")
	s.drained("devries")
	s.drained("bakker")

	one := func(local string) string {
		var got []string
		until(t, local+" has mail", func() bool { got = p.box(local); return len(got) > 0 })
		if len(got) != 1 {
			t.Errorf("%d messages for %s", len(got), local)
		}
		return got[0]
	}
	if got := one("tls"); !strings.Contains(got, "(Postfix) with ESMTPS id ") {
		t.Errorf("bakker's server requires TLS and got\n%s", got)
	}
	if got := one("jörg"); !strings.Contains(got, "(Postfix) with UTF8SMTP id ") || !strings.Contains(got, "Delivered-To: jörg@jansen.example\r\n") ||
		!strings.Contains(got, "\r\nSubject: Grüße\r\n") {
		t.Errorf("jansen's server knows SMTPUTF8 and got\n%s", got)
	}

	// devries' server does not know SMTPUTF8: the sender is told.
	s.keeps("pietersen", 1)
	dsn := s.body(s.rows("pietersen")[0].QueueID)
	for _, want := range []string{"5.6.7", "Action: failed", "Content-Type: message/global-delivery-status", "Final-Recipient: utf-8;jörg@devries.example"} {
		if !strings.Contains(dsn, want) {
			t.Errorf("the notification lacks %q:\n%s", want, dsn)
		}
	}

	// smit's route asks for TLS, and the server there has none: the mail waits.
	s.keeps("smit", 1)
	if q := s.queue("smit"); !strings.Contains(q.LastWords, "TLS") {
		t.Errorf("smit's queue waits because of %q", q.LastWords)
	}
	if got := p.box("info"); len(got) != 0 {
		t.Errorf("mail that must travel by TLS came without:\n%s", got)
	}
}

func TestEightBitMailIsNotPushedToAServerThatTakesSevenBits(t *testing.T) {
	t.Parallel()
	k := newSink(t, "PIPELINING")
	s := serve(t, nil)
	s.customer("jansen", k.addr)
	s.customer("pietersen", "127.0.0.1:1")
	for subject, want := range map[string]string{"Grüße": "Status: 5.6.3", "greetings": ""} {
		l := text(subject, "info@jansen.example")
		if want != "" {
			l.params = " BODY=8BITMIME"
		}
		taken(t, s.send(l))
		s.drained("jansen")
		if want == "" {
			mentions(t, string(k.next().body), "Subject: greetings\r\n")
			continue
		}
		s.keeps("pietersen", 1)
		mentions(t, s.body(s.rows("pietersen")[0].QueueID), want, "Action: failed", "8BITMIME")
	}
	k.none()
}

// With BDAT a message can end within a line. That is kept as it is where it can
// be; DATA cannot say it, so the line is ended.
func TestALastLineWithoutAnEnd(t *testing.T) {
	t.Parallel()
	bdat, data := newSink(t), newSink(t, "PIPELINING")
	s := serve(t, nil)
	s.customer("jansen", bdat.addr)
	s.customer("devries", data.addr)
	for _, body := range []string{"Subject: x\r\n\r\nno end", "Subject: x\r\n\r\n.", "Subject: x\r\n\r\n.\r\n", "Subject: x\r\n\r\n..", "Subject: x"} {
		l := text("", "info@jansen.example", "info@devries.example")
		l.body = []byte(body)
		taken(t, call(t, s.smtp()).hello().bdat(l))
		if got := string(bdat.next().body); !strings.HasSuffix(got, "\r\n"+body) {
			t.Errorf("%q came by BDAT as %q", body, got)
		}
		if got := string(data.next().body); !strings.HasSuffix(got, "\r\n"+strings.TrimSuffix(body, "\r\n")+"\r\n") {
			t.Errorf("%q came by DATA as %q", body, got)
		}
	}
}

// smtp-sink plays a server behind a PIX firewall, which hides its banner and
// understands no ESMTP (B18).
func TestAServerBehindAPIXGetsItsMail(t *testing.T) {
	t.Parallel()
	dir, addr := openDir(t), "127.0.0.1:"+freePort(t)
	args := []string{"-P", "-d", filepath.Join(dir, "mail."), addr, "10"}
	if os.Getuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(need(t, "smtp-sink", "postfix"), args...)
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	reachable(t, addr)
	s := serve(t, nil)
	s.customer("jansen", addr)
	l := text("by way of a PIX", "info@jansen.example")
	taken(t, s.send(l))
	s.drained("jansen")
	if q := s.queue("jansen"); !strings.Contains(q.LastBanner, "****") {
		t.Errorf("the banner was %q", q.LastBanner)
	}
	names, err := filepath.Glob(filepath.Join(dir, "mail.*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%d messages came, %v", len(names), err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(b), "\n", "\r\n")
	mentions(t, got, "X-Client-Proto: SMTP\r\n", "X-Helo-Args: mx.provider.example\r\n")
	if !strings.HasSuffix(got, "\r\n"+string(l.body)+"\r\n") { // the dump ends in an empty line
		t.Errorf("it came as %q", got)
	}
}
