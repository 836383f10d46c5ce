package delivery

import (
	"io"
	"strings"
	"testing"
	"time"

	"bsmtpd/spool"
)

// keptAfter fails the test unless the mail is still queued after a session that
// ended within a time, with these words and this outcome.
func (w *world) keptAfter(d time.Duration, outcome spool.Outcome, words string) {
	w.t.Helper()
	w.mail("jansen", "hello\r\n")
	w.pass(d)
	w.left(jansensQueue, 1)
	q := w.queue("jansen")
	if q.LastOutcome != outcome || !strings.Contains(q.LastWords, words) {
		w.t.Fatalf("outcome %s, words %q; want %s, %q", q.LastOutcome, q.LastWords, outcome, words)
	}
	if q.Claim != nil {
		w.t.Fatal("the session is still at work")
	}
	if wait := q.Next.Sub(q.LastAttempt); wait < 19*time.Minute || wait > 31*time.Minute {
		w.t.Fatal("the next attempt comes after", wait)
	}
}

// raw serves a function for each connection.
func raw(f func(c *mxConn)) func(c *mxConn, line string) (string, bool) {
	return func(c *mxConn, _ string) (string, bool) {
		f(c)
		return "drop", true
	}
}

func TestServersThatTalkNonsense(t *testing.T) {
	for name, tc := range map[string]struct {
		m       *mx
		within  time.Duration
		outcome spool.Outcome
		words   string
	}{
		"refuses by its banner": {&mx{banner: "554 5.7.1 go away"}, time.Second, spool.OutcomeFailed, "554 5.7.1 go away"},
		"is busy":               {&mx{banner: "421 4.3.2 come back"}, time.Second, spool.OutcomeFailed, "421 4.3.2 come back"},
		"is no mail server":     {&mx{banner: "SSH-2.0-OpenSSH_9.2"}, time.Second, spool.OutcomeFailed, "nonsense"},
		"has a giant banner":    {&mx{banner: "220 " + strings.Repeat("x", 1<<20)}, time.Second, spool.OutcomeFailed, "more than 4096 bytes"},
		"has an endless banner": {&mx{banner: strings.Repeat("220-x\r\n", 10_000)}, time.Second, spool.OutcomeFailed, "more than 128 lines"},
		"talks before it is asked": {&mx{banner: "220 hi\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 ok\r\n250 ok"}, time.Second,
			spool.OutcomeFailed, "spoke before it was asked"},
		"knows no greeting at all": {&mx{script: func(*mxConn, string) (string, bool) { return "500 what?", true }}, time.Second,
			spool.OutcomeFailed, "500 what?"},
		"never answers EHLO": {&mx{script: func(*mxConn, string) (string, bool) { return "", true }}, 2 * time.Minute,
			spool.OutcomeFailed, "no sign of life"},
		"drips": {&mx{script: raw(func(c *mxConn) {
			for {
				if _, err := io.WriteString(c.nc, "2"); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		})}, 2 * time.Minute, spool.OutcomeFailed, "no sign of life"},
		"never answers MAIL": {&mx{offers: allOffers, script: func(_ *mxConn, line string) (string, bool) {
			return "", strings.HasPrefix(line, "MAIL")
		}}, 12 * time.Minute, spool.OutcomeLost, "no sign of life"},
		"answers with nonsense codes": {&mx{offers: allOffers, script: func(_ *mxConn, line string) (string, bool) {
			return "354 go", strings.HasPrefix(line, "MAIL")
		}}, time.Second, spool.OutcomeLost, "does not fit"},
		"answers more than was asked": {&mx{offers: allOffers, script: func(_ *mxConn, line string) (string, bool) {
			return strings.Repeat("250 ok\r\n", 50) + "250 ok", strings.HasPrefix(line, "MAIL")
		}}, time.Second, spool.OutcomeLost, "more answers than"},
		"takes DATA of a refused sender": {&mx{offers: without("CHUNKING"), script: func(c *mxConn, line string) (string, bool) {
			switch {
			case strings.HasPrefix(line, "MAIL"):
				return "451 no", true
			case strings.HasPrefix(line, "RCPT"):
				return "250 ok", true
			case strings.HasPrefix(line, "DATA"):
				return "354 go", true
			}
			return "", false
		}}, time.Second, spool.OutcomeLost, "does not fit"},
		"says 421 to the first message": {&mx{offers: allOffers, script: func(_ *mxConn, line string) (string, bool) {
			return "421 4.3.2 shutting down", strings.HasPrefix(line, "RCPT")
		}}, time.Second, spool.OutcomeLost, "421 4.3.2 shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.jansen(tc.m)
				w.keptAfter(tc.within, tc.outcome, tc.words)
				if got := tc.m.got(); len(got) != 0 {
					t.Fatal(got)
				}
			})
		})
	}
}

func TestAYesBeforeTheEndOfTheBodyIsNotBelieved(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, script: func(c *mxConn, line string) (string, bool) {
			if strings.HasPrefix(line, "BDAT") {
				c.say("250 2.0.0 ok")
				time.Sleep(time.Minute) // and reads nothing more
				return "drop", true
			}
			return "", false
		}})
		w.mail("jansen", strings.Repeat("0123456789\r\n", 100_000))
		w.pass(2 * time.Minute)
		w.left(jansensQueue, 1)
		if q := w.queue("jansen"); q.LastOutcome != spool.OutcomeLost || len(m.got()) != 0 {
			t.Fatalf("%+v", q)
		}
	})
}

func TestUnreachableServerIsTriedAgainAfterTwentyMinutes(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.net.silence(jansensServer, true)
		began := time.Now()
		w.keptAfter(15*time.Second, spool.OutcomeFailed, "no connection to 192.0.2.10:25 within 10s")
		w.mail("jansen", "second\r\n") // is not tried: the server is known to be away
		w.pass(19 * time.Minute)
		if n := len(w.net.dialled()); n != 1 {
			t.Fatal(n, "connections were tried")
		}
		w.net.silence(jansensServer, false)
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
		if got := m.bodies(); got != "hello second" {
			t.Fatal(got)
		}
		if q := w.queue("jansen"); q.LastCause != spool.CauseTimer || q.LastAttempt.Std().Sub(began).Round(time.Second) != 20*time.Minute {
			t.Fatalf("%+v", q)
		}
	})
}

func TestLoginPushesAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := &mx{offers: allOffers}
		w.jansen(m)
		m.close() // the customer is offline: connection refused
		for range 3 {
			w.mail("jansen", "hello\r\n")
		}
		w.pass(5 * time.Minute)
		w.left(jansensQueue, 3)
		if q := w.queue("jansen"); q.LastWords != "connect to 192.0.2.10:25: connection refused" {
			t.Fatal(q.LastWords)
		}
		m2 := w.serve(jansensServer, &mx{offers: allOffers})
		w.login("jansen")
		w.pass(100 * time.Millisecond)
		if got := m2.got(); len(got) != 3 {
			t.Fatal(len(got), "arrived")
		}
		if w.metric("delivery_login_first_byte_seconds") != 1 {
			t.Fatal("the time to the first byte was not measured")
		}
	})
}

// TestConnectionLostInTheMiddle: the messages that were answered are gone from the
// queue, all others stay; the one in doubt says so.
func TestConnectionLostInTheMiddle(t *testing.T) {
	for _, reply := range []string{"keep and drop", "drop"} {
		inEveryMode(t, func(t *testing.T, w *world, m *mx) {
			m.final = func(c *mxConn, a *arrived) string {
				if c.n == 1 && strings.HasPrefix(a.body, "3") {
					return reply
				}
				return "250 2.0.0 ok"
			}
			w.jansen(m)
			w.pusher.Pause(true)
			for i := range 6 {
				w.mail("jansen", string(rune('1'+i))+"\r\n")
			}
			w.pusher.Pause(false)
			w.pass(time.Minute)
			left := w.left(jansensQueue, 4)
			if q := w.queue("jansen"); q.LastOutcome != spool.OutcomeLost || !strings.Contains(q.LastWords, "connection lost") {
				t.Fatalf("%+v", q)
			}
			if r := left[0].To[0].Last; r.Code != 0 || !strings.Contains(r.Text, "connection lost") || left[0].Attempts != 1 || left[1].Attempts != 0 {
				t.Fatalf("%+v", left[:2])
			}
			if n := w.metric("delivery_duplicates_possible_total"); n < 1 || n > 4 {
				t.Fatal(n, "possible duplicates were counted")
			}
			w.pass(20 * time.Minute)
			w.left(jansensQueue, 0)
			want := "1 2 3 4 5 6"
			if reply == "keep and drop" {
				want = "1 2 3 3 4 5 6" // nobody could know
			}
			if got := m.bodies(); got != want {
				t.Fatal(got)
			}
		})
	}
}

func TestServerThatEndsConnectionsAfterSomeMessages(t *testing.T) {
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		m.script = func(c *mxConn, line string) (string, bool) {
			if c.count == 3 && strings.HasPrefix(line, "MAIL") {
				c.say("421 4.7.0 too many messages in this connection")
				return "drop", true
			}
			return "", false
		}
		w.jansen(m)
		w.pusher.Pause(true)
		want := ""
		for i := range 10 {
			w.mail("jansen", string(rune('a'+i))+"\r\n")
			want += string(rune('a'+i)) + " "
		}
		w.pusher.Pause(false)
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
		if got := m.bodies(); got != strings.TrimSpace(want) || m.connections() != 4 {
			t.Fatal(got, m.connections())
		}
	})
}

func TestServerOutOfStepGetsTheMessageAgain(t *testing.T) {
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		done := false
		m.script = func(c *mxConn, line string) (string, bool) {
			if c.count == 2 && !done && strings.HasPrefix(line, "MAIL") {
				done = true
				return "503 5.5.1 sender already given", true
			}
			return "", false
		}
		w.jansen(m)
		w.pusher.Pause(true)
		for i := range 3 {
			w.mail("jansen", string(rune('1'+i))+"\r\n")
		}
		w.pusher.Pause(false)
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
		if got := m.bodies(); got != "1 2 3" || m.connections() != 1 {
			t.Fatal(got, m.connections())
		}
	})
}

func TestBrokenPromiseOfChunking(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers, script: func(c *mxConn, line string) (string, bool) {
			return "500 5.5.2 unknown command", strings.HasPrefix(line, "BDAT")
		}})
		w.mail("jansen", "1\r\nMAIL FROM:<evil@example.net>\r\n")
		w.mail("jansen", "2\r\n")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if got := m.got(); len(got) != 2 || !strings.HasPrefix(got[0].body, "1\r\nMAIL") || m.connections() != 2 {
			t.Fatal(got, m.connections())
		}
	})
}

// TestOneBadMessageDoesNotBlockTheQueue: a message that makes the server drop the
// connection goes last after its second try.
func TestOneBadMessageDoesNotBlockTheQueue(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: without("CHUNKING"), final: func(_ *mxConn, a *arrived) string {
			if strings.HasPrefix(a.body, "poison") {
				return "drop"
			}
			return "250 ok"
		}})
		w.pusher.Pause(true)
		w.mail("jansen", "poison\r\n")
		w.mail("jansen", "1\r\n")
		w.mail("jansen", "2\r\n")
		w.pusher.Pause(false)
		w.pass(61 * time.Minute)
		left := w.left(jansensQueue, 1)
		if m.bodies() != "1 2" || left[0].Attempts < 3 {
			t.Fatalf("%s, left: %+v", m.bodies(), left)
		}
	})
}

func TestWatchdogEndsAHangingSession(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.jansen(&mx{offers: allOffers, final: func(*mxConn, *arrived) string {
			time.Sleep(time.Hour)
			return "250 ok"
		}})
		w.keptAfter(11*time.Minute, spool.OutcomeLost, "no sign of life")
	})
}

func TestLongSessionGivesTheNextOneItsTurn(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"8BITMIME"}, final: func(*mxConn, *arrived) string {
			time.Sleep(9 * time.Minute)
			return "250 ok"
		}})
		w.pusher.Pause(true)
		for range 12 {
			w.mail("jansen", "x\r\n")
		}
		w.pusher.Pause(false)
		w.pass(3 * time.Hour)
		w.left(jansensQueue, 0)
		if len(m.got()) != 12 || m.connections() != 2 {
			t.Fatal(len(m.got()), "messages over", m.connections(), "connections")
		}
	})
}
