package peers

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The story of the service: the customer is offline, mail is kept, the customer
// comes online and has it all at once, in order.
func TestALoginPushesEverythingThatWaited(t *testing.T) {
	t.Parallel()
	need(t, "radclient", "freeradius-utils")
	p := newPostfix(t)
	s := serve(t, nil)
	s.customer("jansen", p.route("bdat"), "--address", "127.0.0.1")
	p.start()
	taken(t, s.send(text("before", "info@jansen.example")))
	s.drained("jansen")

	p.stop()
	const letters = 50
	c := call(t, s.smtp()).hello()
	for i := range letters {
		taken(t, c.data(text(fmt.Sprintf("letter %d", i), "info@jansen.example")))
	}
	s.keeps("jansen", letters)
	for i, r := range s.rows("jansen") {
		if r.QueueName != "deferred" || !strings.Contains(r.Recipients[0].DelayReason+s.queue("jansen").LastWords, "refused") {
			t.Errorf("row %d: %+v, and the queue's last words %q do not say why", i, r, s.queue("jansen").LastWords)
		}
	}
	mentions(t, s.cli("account", "explain", "jansen", "--quick"), "jansen", "refused", fmt.Sprint(letters))

	p.start()
	if got := s.queue("jansen").Messages; got != letters {
		t.Fatalf("%d messages wait: the push did not wait for the login", got)
	}
	began := time.Now()
	s.online("jansen", "s1")
	told := time.Since(began)
	s.drained("jansen")
	took := time.Since(began)
	t.Logf("RADIUS answered after %s, %d messages pushed after %s", told.Round(time.Millisecond), letters, took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("the push took %s", took)
	}
	got := p.inOrder("info")
	until(t, "Postfix has delivered everything", func() bool { got = p.inOrder("info"); return len(got) >= letters+1 })
	for i, m := range got {
		want := "before"
		if i > 0 {
			want = fmt.Sprintf("letter %d", i-1)
		}
		if !strings.Contains(m, "\r\nSubject: "+want+"\r\n") {
			t.Errorf("at place %d is not %q:\n%s", i, want, m)
		}
	}
	if len(got) != letters+1 {
		t.Errorf("%d messages, want %d", len(got), letters+1)
	}
	secondLogin(t, s, p)
}

// secondLogin comes within 20 minutes of one that led to a push: it is recorded,
// reported and starts nothing.
func secondLogin(t *testing.T, s *server, p *postfix) {
	t.Helper()
	p.stop()
	taken(t, s.send(text("too late", "info@jansen.example")))
	s.keeps("jansen", 1)
	tried := s.queue("jansen").LastAttempt
	said := s.cli("login", "send", "jansen", "--address", "127.0.0.1")
	if !strings.Contains(said, "jansen is online; 1 message waiting; debounced") {
		t.Errorf("login send says %q", said)
	}
	s.online("jansen", "s3")
	q := s.queue("jansen")
	if q.Debounced != 2 || q.Messages != 1 || !q.LastAttempt.Equal(tried) {
		t.Errorf("after two more logins: %+v", q)
	}
	if wait := q.NextAttempt.Sub(tried); wait < 19*time.Minute || wait > 21*time.Minute || q.NextCause != "timer" {
		t.Errorf("the next attempt comes after %s by %s; want the timer's 20 minutes", wait, q.NextCause)
	}
	list := s.cli("login", "list", "--online")
	if !strings.Contains(list, "jansen") || !strings.Contains(list, "127.0.0.1") {
		t.Errorf("login list says %q", list)
	}
	p.start()
	s.cli("queue", "retry", "account/jansen")
	s.drained("jansen")
}
