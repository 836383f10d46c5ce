package peers

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"bsmtpd/api/client"
)

// accounting is a Start as an access server sends it.
func accounting(login, session, secret string) []byte {
	p := radius.New(radius.CodeAccountingRequest, []byte(secret))
	rfc2866.AcctStatusType_Set(p, rfc2866.AcctStatusType_Value_Start)
	rfc2865.UserName_SetString(p, login)
	rfc2866.AcctSessionID_SetString(p, session)
	rfc2865.NASIdentifier_SetString(p, "nas1")
	rfc2865.FramedIPAddress_Set(p, net.IPv4(127, 0, 0, 1))
	b, err := p.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

// shower sends datagrams to the RADIUS port and gives what comes back.
func (s *server) shower(packets [][]byte) (answers int) {
	s.t.Helper()
	c, err := net.Dial("udp", s.radius())
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	for _, p := range packets {
		c.Write(p)
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	for b := make([]byte, 4096); ; answers++ {
		if _, err := c.Read(b); err != nil {
			return answers
		}
	}
}

func TestRADIUSGarbageIsNotAnswered(t *testing.T) {
	t.Parallel()
	need(t, "radclient", "freeradius-utils")
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	good := accounting("jansen", "s1", "testing123")
	bent := func(change func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		change(b)
		return b
	}
	garbage := map[string][]byte{
		"empty":                 {},
		"one octet":             {4},
		"a header only":         good[:20],
		"cut short":             good[:len(good)-5],
		"a length that lies":    bent(func(b []byte) { b[2], b[3] = 0xff, 0xff }),
		"an attribute of none":  bent(func(b []byte) { b[21] = 0 }),
		"an attribute too long": bent(func(b []byte) { b[21] = 255 }),
		"a wrong authenticator": bent(func(b []byte) { b[10] ^= 1 }),
		"another code":          bent(func(b []byte) { b[0] = 1 }),
		"a wrong secret":        accounting("jansen", "s1", "guess"),
		"the largest packet":    make([]byte, 60_000),
	}
	for name, packet := range garbage {
		if n := s.shower([][]byte{packet}); n != 0 {
			t.Errorf("%s: %d answers", name, n)
		}
	}
	var chance [][]byte
	for i := range 2000 {
		b := make([]byte, i%1000)
		rand.Read(b)
		chance = append(chance, b)
	}
	if n := s.shower(chance); n != 0 {
		t.Errorf("octets of chance: %d answers", n)
	}
	r := s.try("login", "list", "jansen")
	if r.code != 3 {
		t.Errorf("garbage was believed: %+v", r)
	}
	if s.radclient("guess", "Acct-Status-Type=Start,User-Name=jansen,Acct-Session-Id=s1") {
		t.Error("a wrong secret was answered")
	}
	s.online("jansen", "s1")
	if got := s.cli("login", "list", "--online"); !strings.Contains(got, "jansen") {
		t.Errorf("login list: %s", got)
	}
	s.works()
}

// A flood of logins, right ones and unknown ones, costs what has its place in the
// queue and no more; mail is taken meanwhile, and the queue is pushed once.
func TestARADIUSFloodIsSurvived(t *testing.T) {
	t.Parallel()
	need(t, "radclient", "freeradius-utils")
	k := newSink(t)
	s := serve(t, settings{"login.radius.queue": 100})
	s.customer("jansen", "127.0.0.1:1")
	taken(t, s.send(text("kept", "info@jansen.example")))
	s.keeps("jansen", 1)
	s.cli("account", "set", "jansen", "--route", k.addr)
	done := make(chan int)
	for sender := range 4 {
		go func() {
			var packets [][]byte
			for i := range 5000 {
				login := fmt.Sprintf("nobody%d", i)
				if i%10 == 0 {
					login = "jansen"
				}
				packets = append(packets, accounting(login, fmt.Sprintf("f%d-%d", sender, i), "testing123"))
			}
			done <- s.shower(packets)
		}()
	}
	taken(t, s.send(text("meanwhile", "info@jansen.example")))
	answers := 0
	for range 4 {
		answers += <-done
	}
	for _, want := range []string{"kept", "meanwhile"} {
		if got := string(k.next().body); !strings.Contains(got, "Subject: "+want+"\r\n") {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	s.drained("jansen")
	k.none()
	until(t, "RADIUS is answered after the flood", func() bool {
		return s.radclient("testing123", "Acct-Status-Type=Stop,NAS-Identifier=nas1,User-Name=jansen,Acct-Session-Id=last")
	})
	t.Logf("%d of 20000 were answered; the server had %d MiB at most", answers, s.memory())
	for p, err := range s.api.Logins(context.Background(), false, false, client.Page{}) {
		if err != nil || p.Login != "jansen" {
			t.Errorf("login %q is known, %v", p.Login, err)
		}
	}
	s.works()
}
