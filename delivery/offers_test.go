package delivery

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// failedWith fails the test unless one bounce is owed with a status.
func (w *world) failedWith(status string) spool.OwedRecipient {
	w.t.Helper()
	w.left(jansensQueue, 0)
	o := w.owed()
	if len(o) != 1 || len(o[0].To) != 1 || o[0].To[0].Reply.Status.String() != status || o[0].To[0].Action != spool.NotifyFailed {
		w.t.Fatalf("owed: %+v", o)
	}
	return o[0].To[0]
}

func TestMessageAboveTheServersLimitFailsHere(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: []string{"SIZE 1000", "PIPELINING"}})
		w.mail("jansen", strings.Repeat("x", 1001)+"\r\n")
		w.pass(time.Second)
		if r := w.failedWith("5.3.4"); r.Remote != "" {
			t.Fatal("we said it, not", r.Remote)
		}
		if strings.Contains(m.said(), "MAIL") {
			t.Fatal(m.said())
		}
	})
}

func TestEightBitTextNeeds8BITMIME(t *testing.T) {
	env := mail.Envelope{From: "sender@example.net", EightBit: true}
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.enqueue(jansensQueue, env, "caf\xc3\xa9\r\n", "info@jansen.example")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if !strings.Contains(m.said(), "BODY=8BITMIME") {
			t.Fatal(m.said())
		}
	})
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: without("8BITMIME")})
		w.enqueue(jansensQueue, env, "declared, but plain\r\n", "info@jansen.example")
		w.enqueue(jansensQueue, env, "caf\xc3\xa9\r\n", "info@jansen.example")
		w.pass(time.Second)
		w.failedWith("5.6.3")
		if m.bodies() != "declared, but plain" || strings.Contains(m.said(), "BODY") {
			t.Fatal(m.bodies(), m.said())
		}
	})
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{banner: "220 ****************"})
		w.enqueue(jansensQueue, env, "caf\xc3\xa9\r\n", "info@jansen.example")
		w.pass(time.Second)
		if w.left(jansensQueue, 0); m.bodies() != "caf\xc3\xa9" {
			t.Fatal(m.bodies())
		}
	})
}

func TestInternationalMailNeedsSMTPUTF8(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.enqueue(jansensQueue, mail.Envelope{From: "sender@example.net", UTF8: true}, "x\r\n", "jos\u00e9@jansen.example")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if !strings.Contains(m.said(), " SMTPUTF8") {
			t.Fatal(m.said())
		}
	})
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: without("SMTPUTF8")})
		env := mail.Envelope{From: "sender@example.net", UTF8: true}
		w.enqueue(jansensQueue, env, "Subject: x\r\n\r\n1\r\n", "jos\u00e9@jansen.example", "info@jansen.example")
		w.enqueue(jansensQueue, env, "Subject: \u00e9\r\n\r\n2\r\n", "info@jansen.example")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if got := m.got(); len(got) != 1 || len(got[0].to) != 1 || strings.Contains(m.said(), "SMTPUTF8") {
			t.Fatal(got)
		}
		o := w.owed()
		if len(o) != 2 || o[0].To[0].Address != "jos\u00e9@jansen.example" || o[1].To[0].Reply.Status != (mail.Status{5, 6, 7}) {
			t.Fatalf("%+v", o)
		}
	})
}

func TestNotificationsArePassedOnOrRelayedIsTold(t *testing.T) {
	env := mail.Envelope{From: "sender@example.net", EnvID: "a+b c", Return: mail.ReturnHeaders}
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: allOffers})
		w.enqueue(jansensQueue, env, "x\r\n", "info@jansen.example")
		w.pass(time.Second)
		w.left(jansensQueue, 0)
		if s := m.said(); !strings.Contains(s, "RET=HDRS ENVID=a+2Bb+20c") || !strings.Contains(s, "> NOTIFY=SUCCESS,FAILURE") || len(w.owed()) != 0 {
			t.Fatal(s)
		}
	})
	story(t, func(t *testing.T, w *world) {
		m := w.jansen(&mx{offers: without("DSN")})
		w.enqueue(jansensQueue, env, "x\r\n", "info@jansen.example")
		w.pass(time.Second)
		o := w.owed()
		if len(o) != 1 || o[0].To[0].Action != spool.NotifyRelayed || strings.Contains(m.said(), "NOTIFY") {
			t.Fatalf("%+v", o)
		}
	})
}

func TestOriginalRecipientIsEncoded(t *testing.T) {
	for _, tc := range []struct {
		original, want string
		utf8           bool
	}{
		{"rfc822;a+b=c@example.net", " ORCPT=rfc822;a+2Bb+3Dc@example.net", false},
		{"utf-8;jos\u00e9@example.net", ` ORCPT=utf-8;jos\x{E9}@example.net`, false},
		{"utf-8;jos\u00e9@example.net", " ORCPT=utf-8;jos\u00e9@example.net", true},
		{"", "", false},
	} {
		if got := dsnParameters(&spool.Recipient{Original: tc.original}, tc.utf8); got != tc.want {
			t.Errorf("%s: %s", tc.original, got)
		}
	}
}

func TestManyRecipientsTakeSeveralTransactions(t *testing.T) {
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		var to []string
		for i := range 250 {
			to = append(to, fmt.Sprintf("u%d@jansen.example", i))
		}
		m.delay = 0
		w.jansen(m)
		w.mail("jansen", "x\r\n", to...)
		w.pass(time.Minute)
		w.left(jansensQueue, 0)
		got := m.got()
		if len(got) != 3 || len(got[0].to) != 100 || len(got[2].to) != 50 {
			t.Fatal(len(got))
		}
	})
}

// TestBodiesArriveAsTheyAre over every way of sending, whatever stands in them.
func TestBodiesArriveAsTheyAre(t *testing.T) {
	piece := rapid.SampledFrom([]string{".", "..", ".\r\n", "\r\n.\r\n", "\r\n", "a", "text", "\r\n..", "BDAT 1 LAST\r\n", "QUIT\r\n", strings.Repeat("y", 70_000)})
	var bodies []string
	rapid.Check(t, func(t *rapid.T) {
		b := strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "body"), "") + "\r\n"
		if s := stuff(t, b, rapid.IntRange(1, 9).Draw(t, "step")); unstuff(s) != b {
			t.Fatalf("%q became %q", b, s)
		}
		if len(bodies) < 60 {
			bodies = append(bodies, b)
		}
	})
	inEveryMode(t, func(t *testing.T, w *world, m *mx) {
		m.delay = 0
		w.jansen(m)
		w.pusher.Pause(true)
		for _, b := range bodies {
			w.mail("jansen", b)
		}
		w.mail("jansen", "no line end at the end")
		w.pusher.Pause(false)
		w.pass(5 * time.Minute)
		w.left(jansensQueue, 0)
		got := m.got()
		for i, b := range bodies {
			if got[i].body != b {
				t.Fatalf("%.100q became %.100q", b, got[i].body)
			}
		}
		last := got[len(got)-1].body
		if last != "no line end at the end\r\n" && (m.offers == nil || last != "no line end at the end") {
			t.Fatalf("%q", last)
		}
	})
}

// stuff writes a body through a stuffer in small steps.
func stuff(t *rapid.T, b string, step int) string {
	var out bytes.Buffer
	s := &stuffer{w: &out}
	for rest := b; rest != ""; {
		n := min(step, len(rest))
		if _, err := s.Write([]byte(rest[:n])); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func unstuff(s string) string {
	s, ok := strings.CutSuffix(s, "\r\n.\r\n")
	if !ok || strings.Contains("\r\n"+s, "\r\n.\r\n") {
		return "(ends early) " + s
	}
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+s+"\r\n", "\r\n.", "\r\n"), "\r\n")
}

func TestEndOfDataPassesAPixInOneSegment(t *testing.T) {
	for _, size := range []int{10, 511, 512, 600, 4000, 9000, 100_000} {
		story(t, func(t *testing.T, w *world) {
			var wire *half
			m := &mx{banner: "220 ******", script: func(c *mxConn, line string) (string, bool) {
				if line == "DATA" {
					wire = c.nc.(*memConn).r
				}
				return "", false
			}}
			w.jansen(m)
			w.mail("jansen", strings.Repeat("z", size)+"\r\n")
			w.pass(time.Second)
			w.left(jansensQueue, 0)
			found := false
			for _, s := range wire.segments {
				found = found || bytes.HasSuffix(s, []byte("z\r\n.\r\n")) && len(s) <= 1000
			}
			if !found || strings.Contains(m.said(), "EHLO") {
				t.Fatalf("%d: %d segments\n%s", size, len(wire.segments), m.said())
			}
		})
	}
}

// certificate is a server's own for names, and the pool that trusts it.
func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.10")}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLSPolicies(t *testing.T) {
	broken := func(c *mxConn, line string) (string, bool) {
		if line == "STARTTLS" && !c.secure {
			c.say("220 go on")
			c.nc.Write([]byte("this is no handshake, however long it may be"))
			return "drop", true
		}
		return "", false
	}
	injected := func(c *mxConn, line string) (string, bool) {
		return "220 go on\r\n250 injected", line == "STARTTLS"
	}
	for name, tc := range map[string]struct {
		policy  directory.TLSPolicy
		offers  bool
		trusted bool
		script  func(*mxConn, string) (string, bool)
		words   string // of the failure; empty: it arrives
		secure  bool
		conns   int
	}{
		"opportunistic, offered":             {"", true, false, nil, "", true, 1},
		"opportunistic, not offered":         {"", false, false, nil, "", false, 1},
		"opportunistic, broken":              {"", true, false, broken, "", false, 2},
		"opportunistic, injected":            {"", true, false, injected, "", false, 2},
		"none, offered":                      {"none", true, false, nil, "", false, 1},
		"require, offered":                   {"require", true, false, nil, "", true, 1},
		"require, not offered":               {"require", false, false, nil, "offers no STARTTLS", false, 1},
		"require, broken":                    {"require", true, false, broken, "TLS", false, 1},
		"verify, certificate of nobody":      {"verify", true, false, nil, "certificate", false, 1},
		"verify, certificate that is known":  {"verify", true, true, nil, "", true, 1},
		"verify, offered by an injection":    {"verify", true, true, injected, "sent more than the answer to STARTTLS", false, 1},
		"require, refused by the server":     {"require", true, false, func(_ *mxConn, l string) (string, bool) { return "454 4.7.0 no", l == "STARTTLS" }, "454 4.7.0 no", false, 1},
		"opportunistic, refused by a server": {"", true, false, func(_ *mxConn, l string) (string, bool) { return "454 4.7.0 no", l == "STARTTLS" }, "", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				m := &mx{offers: allOffers, script: tc.script}
				conf, pool := certificate(t, "mail.jansen.example")
				if tc.offers {
					m.tls = conf
				}
				if tc.trusted {
					w.pusher.Self.Roots = pool
				}
				w.jansen(m)
				w.dir.put("jansen", directory.Account{Route: directory.Route{Host: "192.0.2.10", Port: 25, TLS: tc.policy}})
				w.mail("jansen", "hello\r\n")
				w.pass(time.Second)
				if m.connections() != tc.conns {
					t.Error(m.connections(), "connections")
				}
				if tc.words != "" {
					w.left(jansensQueue, 1)
					if q := w.queue("jansen"); q.LastOutcome != spool.OutcomeFailed || !strings.Contains(q.LastWords, tc.words) {
						t.Fatalf("%+v", q)
					}
					return
				}
				w.left(jansensQueue, 0)
				if m.got()[0].secure != tc.secure {
					t.Fatal("secure:", m.got()[0].secure)
				}
			})
		})
	}
}

// TestDrainIsBoundByTheLineAndNotByRoundTrips: 100 messages at 200 ms round trip.
func TestDrainIsBoundByTheLineAndNotByRoundTrips(t *testing.T) {
	for name, most := range map[string]time.Duration{"chunking": 2 * time.Second, "pipelining": 23 * time.Second} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.net.latency = 100 * time.Millisecond
				m := w.jansen(&mx{offers: modes[name].offers})
				w.pusher.Pause(true)
				for range 100 {
					w.mail("jansen", "x\r\n")
				}
				w.pusher.Pause(false)
				began := time.Now()
				for len(w.messages(jansensQueue)) > 0 {
					w.pass(50 * time.Millisecond)
				}
				took := time.Since(began)
				t.Log("took", took)
				if took > most || len(m.got()) != 100 {
					t.Fatal("took", took)
				}
			})
		})
	}
}
