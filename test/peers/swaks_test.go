package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// swaks sends one message with the program of that name and gives its dialogue.
func (s *server) swaks(args ...string) result {
	s.t.Helper()
	host, port, _ := strings.Cut(s.smtp(), ":")
	return execute(s.t, "", append([]string{need(s.t, "swaks", "swaks"), "--server", host, "--port", port, "--timeout", "20",
		"--ehlo", "sender.pietersen.example", "--from", "anna@pietersen.example"}, args...)...)
}

// said checks that swaks was told something by the server: "<** " stands before
// refusals, "<- " and "<~ " before other replies, the latter within TLS.
func said(t *testing.T, r result, want string) {
	t.Helper()
	if !strings.Contains(r.out, want) {
		t.Errorf("swaks was not told %q:\n%s%s", want, r.out, r.errs)
	}
}

func TestSwaksSendsThroughSTARTTLS(t *testing.T) {
	t.Parallel()
	k := newSink(t)
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "mx.provider.example")
	s := serve(t, settings{"smtpd.tls_cert": cert, "smtpd.tls_key": key})
	s.customer("jansen", k.addr)
	file := filepath.Join(dir, "letter")
	if err := os.WriteFile(file, []byte("From: anna@pietersen.example\nSubject: by TLS\n\n.\n.. dots\nend\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.swaks("--support"); !strings.Contains(r.out, "TLS supported") {
		t.Skip("swaks has no TLS here: apt-get install libnet-ssleay-perl")
	}
	r := s.swaks("--tls", "--to", "info@jansen.example", "--data", "@"+file)
	said(t, r, "<~  250 2.0.0 queued as ")
	if r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
	d := k.next()
	if got := string(d.body); !strings.Contains(got, " with ESMTPS (version=TLS1.3 cipher=") ||
		!strings.HasSuffix(got, "\r\nSubject: by TLS\r\n\r\n.\r\n.. dots\r\nend\r\n\r\n") { // swaks adds an empty line
		t.Errorf("got %q", got)
	}

	// A new certificate is used without a restart.
	selfSigned(t, dir, "new.provider.example")
	until(t, "the new certificate is shown", func() bool {
		r := s.swaks("--tls", "--quit-after", "EHLO", "--to", "info@jansen.example")
		return strings.Contains(r.out, "new.provider.example")
	})
}

func TestSwaksIsToldWhyMailIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1", "--quota", "64KiB")
	s.customer("devries", "127.0.0.1:1")
	s.cli("account", "set", "devries", "--inactive", "bill not paid")
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, []byte("Subject: large\n\n"+strings.Repeat("0123456789 0123456789 0123456789\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, to, want string }{
		{"not our domain", "someone@elsewhere.example", "<** 554 5.7.1 <someone@elsewhere.example>: relay access denied"},
		{"percent hack", "someone%elsewhere.example@provider.example", "<** 550 5.1.1 "},
		{"inactive", "info@devries.example", "<** 550 5.2.1 <info@devries.example>: the account takes no mail: bill not paid"},
		{"no such mailbox", "nobody@provider.example", "<** 550 5.1.1 <nobody@provider.example>: no such mailbox"},
	} {
		r := s.swaks("--to", c.to)
		said(t, r, c.want)
		if r.code == 0 {
			t.Errorf("%s: swaks is content", c.name)
		}
	}
	said(t, s.swaks("--to", "info@jansen.example", "--data", "@"+large), "<-  250 2.0.0 queued as ")
	// It has room for one, not for two.
	said(t, s.swaks("--to", "info@jansen.example", "--data", "@"+large), "<** 552 5.2.2 account jansen has no room for ")
	// Full to the last byte: refused at RCPT.
	s.cli("account", "set", "jansen", "--quota", "20KiB")
	r := s.swaks("--to", "info@jansen.example", "--data", "@"+large)
	said(t, r, "<** 552 5.2.2 account jansen is full: ")
	if strings.Contains(r.out, " -> DATA") {
		t.Error("a message for a full account was taken over the line")
	}
	s.works()
}

// Two recipients, one of whom is full: the message is taken, and its sender, who
// is a customer too, gets a notification.
func TestTheSenderIsToldOfTheRecipientWhoIsFull(t *testing.T) {
	t.Parallel()
	k, anna := newSink(t), newSink(t)
	s := serve(t, nil)
	s.customer("jansen", k.addr)
	s.customer("devries", "127.0.0.1:1", "--quota", "4KiB")
	s.customer("pietersen", "127.0.0.1:1", "--locale", "nl")
	l := text("to you both", "info@jansen.example", "info@devries.example")
	l.body = append(l.body, strings.Repeat("and so on, and so on\r\n", 300)...)
	l.params = " RET=HDRS ENVID=abc+2B1"
	id := taken(t, s.send(l))
	if got := k.next(); !strings.Contains(string(got.body), "Subject: to you both\r\n") || fmt.Sprint(got.to) != "[TO:<info@jansen.example>]" {
		t.Errorf("jansen got %q for %v", got.body, got.to)
	}
	s.keeps("pietersen", 1)
	row := s.rows("pietersen")[0]
	if row.Sender != "MAILER-DAEMON" || row.Recipients[0].Address != "anna@pietersen.example" {
		t.Errorf("the notification's row: %+v", row)
	}
	dsn := s.body(row.QueueID)
	for _, want := range []string{"Content-Type: multipart/report;", "report-type=delivery-status", "Original-Envelope-Id: abc+1", "Action: failed",
		"Final-Recipient: rfc822;info@devries.example", "Status: 5.2.2", "Content-Type: text/rfc822-headers", "Subject: to you both"} {
		if !strings.Contains(strings.ReplaceAll(dsn, "; ", ";"), strings.ReplaceAll(want, "; ", ";")) {
			t.Errorf("the notification about %s lacks %q:\n%s", id, want, dsn)
		}
	}
	if q := s.queue("devries"); q.Messages != 0 {
		t.Errorf("devries holds %d messages", q.Messages)
	}
	s.cli("account", "set", "pietersen", "--route", anna.addr)
	s.cli("queue", "retry", "--account", "pietersen")
	if got := anna.next(); got.from != "FROM:<>" && !strings.HasPrefix(got.from, "FROM:<> ") {
		t.Errorf("the notification came from %s", got.from)
	}
}
