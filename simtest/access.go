package simtest

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"bsmtpd/login"
	"bsmtpd/mail"
)

// This file is the access server: it tells by RADIUS accounting (RFC 2866) who
// has come online. It makes its packets itself, so that a mistake of the library
// that the node uses does not go unseen.

func radiusClient() login.Client {
	return login.Client{Network: accessAddr.String(), Secret: radiusSecret}
}

// RADIUS attributes and values.
const (
	accountingRequest  = 4
	accountingResponse = 5

	attrUserName      = 1
	attrFramedAddress = 8
	attrNASIdentifier = 32
	attrStatusType    = 40
	attrSessionID     = 44

	statusStart = 1
	statusStop  = 2
	statusOn    = 7
)

// How an access server asks again.
const (
	radiusTries   = 5
	radiusTimeout = 3 * time.Second
)

// Login lets a customer's line come up: RADIUS says that he is online, with his
// own address.
func (w *World) Login(name string) {
	w.t.Helper()
	w.LoginFrom(name, w.account(name).server.addr)
}

// LoginFrom is Login with another address than perhaps his own. Another session
// of the login stays.
func (w *World) LoginFrom(name string, from netip.Addr) {
	w.t.Helper()
	if err := w.TryLogin(name, from); err != nil {
		w.Fatalf("login of %s: %v", name, err)
	}
}

// TryLogin is LoginFrom where the node may not answer.
func (w *World) TryLogin(name string, from netip.Addr) error {
	c := w.account(name)
	c.session = w.newSession()
	c.asked = append(c.asked, time.Now())
	w.Note("%s logs in with %s", name, from)
	return w.radius(statusStart, name, c.session, from)
}

func (w *World) newSession() string {
	w.session++
	return fmt.Sprintf("s%06d", w.session)
}

// Repeat sends a packet again and again, and waits for no answer. The story need
// not wait either.
func (w *World) Repeat(status uint32, name, session string, from netip.Addr, after ...time.Duration) {
	w.session++
	packet := accountingPacket(byte(w.session), status, name, session, from)
	boots := w.boots.Load()
	for _, d := range after {
		w.Go(func() {
			s, err := w.access.ListenPacket("udp", accessAddr.String()+":0")
			if err != nil {
				return
			}
			defer s.Close()
			if w.Pause(d) && w.boots.Load() == boots { // after a restart the session would be news
				s.WriteTo(packet, net.UDPAddrFromAddrPort(netip.AddrPortFrom(nodeAddr, 1813)))
			}
		})
	}
}

// Logout says that a customer's last session has ended.
func (w *World) Logout(name string) {
	w.t.Helper()
	if err := w.tryLogout(name); err != nil {
		w.Fatalf("logout of %s: %v", name, err)
	}
}

func (w *World) tryLogout(name string) error {
	c := w.account(name)
	if c.session == "" {
		return nil
	}
	session := c.session
	c.session = ""
	return w.radius(statusStop, name, session, c.server.addr)
}

// AccessRestarts says that the access server has lost all its sessions.
func (w *World) AccessRestarts() {
	w.t.Helper()
	if err := w.tryAccessRestarts(); err != nil {
		w.Fatalf("Accounting-On: %v", err)
	}
}

func (w *World) tryAccessRestarts() error {
	for _, c := range w.logins {
		c.session = ""
	}
	w.boots.Add(1)
	return w.radius(statusOn, "", "on"+w.newSession(), netip.Addr{})
}

// radius sends a request until it is answered.
func (w *World) radius(status uint32, name, session string, from netip.Addr) error {
	s, err := w.access.ListenPacket("udp", accessAddr.String()+":0")
	if err != nil {
		return err
	}
	defer s.Close()
	w.session++
	packet := accountingPacket(byte(w.session), status, name, session, from)
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(nodeAddr, 1813))
	answer := make([]byte, 4096)
	for range radiusTries {
		if _, err := s.WriteTo(packet, to); err != nil {
			return err
		}
		s.SetReadDeadline(time.Now().Add(radiusTimeout))
		n, _, err := s.ReadFrom(answer)
		if err != nil {
			continue
		}
		return checkAnswer(packet, answer[:n])
	}
	return fmt.Errorf("no answer after %d requests", radiusTries)
}

func accountingPacket(id byte, status uint32, name, session string, from netip.Addr) []byte {
	b := make([]byte, 20)
	b[0], b[1] = accountingRequest, id
	attr := func(kind byte, value []byte) {
		b = append(b, kind, byte(2+len(value)))
		b = append(b, value...)
	}
	attr(attrStatusType, binary.BigEndian.AppendUint32(nil, status))
	attr(attrNASIdentifier, []byte("nas1"))
	attr(attrSessionID, []byte(session))
	if name != "" {
		attr(attrUserName, []byte(name))
	}
	if from.Is4() {
		attr(attrFramedAddress, from.AsSlice())
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	// The Request Authenticator of RFC 2866 section 3.
	sum := md5.Sum(append(b[:len(b):len(b)], radiusSecret...))
	copy(b[4:], sum[:])
	return b
}

// checkAnswer checks the Response Authenticator of RFC 2866 section 3.
func checkAnswer(request, answer []byte) error {
	if len(answer) < 20 || answer[0] != accountingResponse || answer[1] != request[1] {
		return fmt.Errorf("the answer is not one: %x", answer)
	}
	b := append([]byte(nil), answer...)
	copy(b[4:20], request[4:20])
	if sum := md5.Sum(append(b, radiusSecret...)); string(sum[:]) != string(answer[4:20]) {
		return fmt.Errorf("the answer's authenticator is wrong")
	}
	return nil
}

// account finds a customer.
func (w *World) account(name string) *customer {
	w.t.Helper()
	c := w.logins[mail.Login(name)]
	if c == nil {
		w.Fatalf("there is no account %s in this world", name)
	}
	return c
}
