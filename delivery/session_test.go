package delivery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

var jansensQueue = spool.AccountQueue("jansen")

func TestNewMailIsPushedAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.mail("jansen", "Subject: one\r\n\r\nhello\r\n")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if got := m.got(); len(got) != 1 || got[0].body != "Subject: one\r\n\r\nhello\r\n" || got[0].to[0] != "<info@jansen.example>" {
			t.Fatalf("%+v", got)
		}
		if q := w.queue("jansen"); q.LastOutcome != spool.OutcomeDone || q.LastRemote != jansensServer || q.LastBanner != "mail.jansen.example ESMTP" ||
			q.LastWords != "250 2.0.0 ok 1" || q.LastSuccess == 0 {
			t.Fatalf("%+v", q)
		}
	})
}

// modes are the ways of sending that a server's offers lead to.
var modes = map[string]*mx{
	"chunking":   {offers: allOffers, strict: true},
	"pipelining": {offers: without("CHUNKING"), strict: true},
	"plain":      {offers: []string{"8BITMIME"}, strict: true},
	"helo":       {strict: true},
	"pix":        {banner: "220 **************2*****0*", offers: allOffers, strict: true},
}

func inEveryMode(t *testing.T, tell func(t *testing.T, w *world, m *mx)) {
	for name, m := range modes {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				tell(t, w, &mx{banner: m.banner, offers: m.offers, strict: m.strict, delay: 200 * time.Millisecond})
			})
		})
	}
}

func TestOrderOfArrivalIsKept(t *testing.T) {
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		want := ""
		w.jansen(m)
		w.pusher.Pause(true)
		for i := range 40 {
			w.mail("jansen", fmt.Sprintf("%d\r\n", i))
			want += fmt.Sprintf("%d ", i)
		}
		w.pusher.Pause(false)
		w.pass(10 * time.Minute)
		w.left(jansensQueue, 0)
		if got := m.bodies(); got != strings.TrimSpace(want) {
			t.Fatal(got)
		}
		if m.connections() != 1 {
			t.Fatal(m.connections(), "connections")
		}
	})
}

// TestRefusedRecipientsTakeNothingElseWithThem: refusals at every stage, between
// good messages, with a server that keeps the failed transaction open.
func TestRefusedRecipientsTakeNothingElseWithThem(t *testing.T) {
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		m.script = func(c *mxConn, line string) (string, bool) {
			switch {
			case strings.Contains(line, "bad@"):
				return "550 5.1.1 no such user", true
			case strings.Contains(line, "later@"):
				return "451 4.2.0 try later", true
			case strings.Contains(line, "FROM:<spammer@"):
				return "554 5.7.1 not you", true
			}
			return "", false
		}
		m.final = func(c *mxConn, a *arrived) string {
			if strings.Contains(a.body, "virus") {
				return "554 5.6.0 virus"
			}
			return "250 2.0.0 ok"
		}
		w.jansen(m)
		w.pusher.Pause(true)
		w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n", "bad@jansen.example")
		w.mail("jansen", "3\r\n")
		w.mail("jansen", "4\r\n", "bad@jansen.example", "info@jansen.example", "later@jansen.example")
		w.mail("jansen", "5 virus\r\n")
		w.mail("jansen", "6\r\n", "later@jansen.example", "bad@jansen.example")
		w.enqueue(jansensQueue, mail.Envelope{From: "spammer@example.net"}, "7\r\n", "info@jansen.example")
		w.mail("jansen", "8\r\n")
		w.pusher.Pause(false)
		w.pass(time.Minute)
		if got := m.bodies(); got != "1 3 4 8" {
			t.Fatal(got, "\n", m.said())
		}
		for _, a := range m.got() {
			if !strings.HasPrefix(a.from, "<sender@example.net>") {
				t.Fatal("arrived under the wrong sender:", a)
			}
		}
		left := w.left(jansensQueue, 2)
		for _, l := range left {
			if len(l.To) != 1 || l.To[0].Address != "later@jansen.example" || l.To[0].Last.Code != 451 || l.To[0].Last.Text != "try later" {
				t.Fatalf("%+v", l)
			}
		}
		words := map[string]int{}
		for _, o := range w.owed() {
			for _, to := range o.To {
				words[to.Reply.String()+" "+string(to.Address)]++
			}
		}
		want := map[string]int{"550 5.1.1 no such user bad@jansen.example": 3, "554 5.6.0 virus info@jansen.example": 1, "554 5.7.1 not you info@jansen.example": 1}
		if fmt.Sprint(words) != fmt.Sprint(want) {
			t.Fatal(words)
		}
		q := w.queue("jansen")
		if q.LastOutcome != spool.OutcomeDone || q.Next.Sub(mail.At(time.Now())) > 20*time.Minute {
			t.Fatalf("%+v", q)
		}
	})
}
