package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
)

// access is an access server that tells of logins, one at a time.
type access struct {
	conn net.Conn
	id   byte
}

func newAccess(addr string) (*access, error) {
	c, err := net.Dial("udp", addr)
	return &access{conn: c}, err
}

const (
	radiusAgain = time.Second // an access server asks again
	radiusTries = 10
)

// login sends an accounting Start and waits for the answer. It gives the time when
// it was sent first.
func (a *access) login(ctx context.Context, name string) (sent time.Time, err error) {
	p := radius.New(radius.CodeAccountingRequest, []byte("testing123"))
	a.id++
	p.Identifier = a.id
	for _, err := range []error{
		rfc2866.AcctStatusType_Set(p, rfc2866.AcctStatusType_Value_Start),
		rfc2865.UserName_SetString(p, name),
		rfc2866.AcctSessionID_SetString(p, "bench-"+name),
		rfc2865.FramedIPAddress_Set(p, net.IPv4(127, 0, 0, 1)),
		rfc2865.NASIdentifier_SetString(p, "nas1"),
	} {
		if err != nil {
			return sent, err
		}
	}
	b, err := p.Encode()
	if err != nil {
		return sent, err
	}
	sent = time.Now()
	answer := make([]byte, 4096)
	for range radiusTries {
		if _, err := a.conn.Write(b); err != nil {
			return sent, err
		}
		a.conn.SetReadDeadline(time.Now().Add(radiusAgain))
		for {
			n, err := a.conn.Read(answer)
			if err != nil {
				break
			}
			if n > 1 && radius.Code(answer[0]) == radius.CodeAccountingResponse && answer[1] == a.id {
				return sent, nil
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return sent, errors.Join(fmt.Errorf("login %s was not answered", name), ctx.Err())
}
