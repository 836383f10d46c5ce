package peers

import (
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
