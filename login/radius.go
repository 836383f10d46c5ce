package login

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"layeh.com/radius"

	"bsmtpd/directory"
	"bsmtpd/host"
)

const (
	readBufferBytes = 4 << 20 // of the socket: what a restarting access server sends at once
	readErrorPause  = 100 * time.Millisecond
)

// Why packets get no answer.
const (
	dropClient        = "client"
	dropAuthenticator = "authenticator"
	dropMalformed     = "malformed"
	dropCode          = "code"
	dropStatus        = "status"
	dropFlood         = "flood"
	dropFailed        = "failed"
	dropPanic         = "panic"
)

// request is an authentic packet of a known client.
type request struct {
	raw    []byte
	from   net.Addr
	source netip.Addr
	secret []byte
	key    requestKey
	came   time.Time
}

// serveRadius answers accounting requests (RFC 2866). One goroutine reads and
// throws out what is not for us; a bounded number of workers wait for commits.
func (s *Server) serveRadius(ctx context.Context) error {
	queue := make(chan request, s.cfg.Radius.Queue)
	known := newReplies()
	// Requests in work finish after ctx has ended, for a while.
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var workers sync.WaitGroup
	for range s.cfg.Radius.Workers {
		workers.Go(func() {
			for r := range queue {
				s.metrics.waiting.Set(float64(len(queue)))
				known.end(r.key, s.answer(working, r))
			}
		})
	}
	wake := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Now()) })
	defer wake()
	err := s.readRadius(ctx, queue, known)
	grace := time.AfterFunc(stopGrace, cancel)
	defer grace.Stop()
	close(queue)
	workers.Wait()
	if cerr := s.conn.Close(); err == nil && cerr != nil {
		err = cerr
	}
	return err
}

func (s *Server) readRadius(ctx context.Context, queue chan<- request, known *replies) error {
	buf := make([]byte, radius.MaxPacketLength+1)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("login.radius.listen: %w", err)
		case err != nil:
			s.drop(dropMalformed, "network", err.Error())
			if host.Sleep(ctx, readErrorPause) != nil {
				return nil
			}
			continue
		}
		r, ok := s.admit(buf[:n], from)
		if !ok {
			continue
		}
		reply, fresh := known.begin(r.key)
		if !fresh {
			s.metrics.again.Inc()
			if reply != nil {
				s.conn.WriteTo(reply, from)
			}
			continue
		}
		select {
		case queue <- r:
		default:
			known.end(r.key, nil)
			s.drop(dropFlood, from.String(), fmt.Sprintf("%d requests wait for a worker", cap(queue)))
		}
	}
}

// admit lets authentic packets of known clients through, as a copy.
func (s *Server) admit(b []byte, from net.Addr) (request, bool) {
	source, err := netip.ParseAddrPort(from.String())
	if err != nil {
		s.drop(dropClient, from.String(), "no IP address")
		return request{}, false
	}
	c := s.rules.Load().clients.find(source.Addr())
	if c == nil {
		s.drop(dropClient, from.String(), "not in login.radius.clients")
		return request{}, false
	}
	raw := wire(b)
	if raw == nil {
		s.drop(dropMalformed, from.String(), "not a RADIUS packet")
		return request{}, false
	}
	switch code := radius.Code(raw[0]); code {
	case radius.CodeAccountingRequest, radius.CodeStatusServer:
	default:
		s.drop(dropCode, from.String(), code.String()+" is not for an accounting port")
		return request{}, false
	}
	if !authentic(raw, c.secret) {
		s.drop(dropAuthenticator, from.String(), "the authenticator is wrong: does the client have another secret?")
		return request{}, false
	}
	raw = append([]byte(nil), raw...)
	return request{raw: raw, from: from, source: source.Addr().Unmap(), secret: c.secret,
		key: keyOf(raw, source), came: time.Now()}, true
}

// answer works on one request and returns what it sent, nil for nothing.
func (s *Server) answer(ctx context.Context, r request) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			reply = nil
			s.drop(dropPanic, r.from.String(), fmt.Sprintf("%v\n%s", p, debug.Stack()))
		}
	}()
	p, err := radius.Parse(r.raw, r.secret)
	if err != nil {
		s.drop(dropMalformed, r.from.String(), err.Error())
		return nil
	}
	if p.Code == radius.CodeAccountingRequest && !s.account(ctx, p, r) {
		return nil
	}
	if reply, err = response(p); err != nil {
		s.drop(dropMalformed, r.from.String(), err.Error())
		return nil
	}
	if _, err := s.conn.WriteTo(reply, r.from); err != nil {
		// The client asks again, and then gets the reply from memory.
		s.log.Warn("radius answer not sent", "to", r.from.String(), "err", err)
	}
	s.metrics.answer.Observe(time.Since(r.came).Seconds())
	return reply
}

// account records an Accounting-Request and reports whether it may be answered.
// What can never be recorded is answered too: sending it again would not help.
func (s *Server) account(ctx context.Context, p *radius.Packet, r request) bool {
	a, err := readAccounting(p, r.source)
	if err != nil {
		s.drop(dropStatus, r.from.String(), err.Error())
		return false
	}
	e := a.event
	switch e.Kind {
	case 0:
		return true
	case directory.EventOn, directory.EventOff:
	default:
		login, err := Normalise(a.name, s.rules.Load().stripRealm)
		if err != nil {
			s.metrics.events.WithLabelValues(sourceRadius, "unknown").Inc()
			s.log.Info("login", "event", kindNames[e.Kind], "outcome", "unknown", "name", a.name,
				"source", sourceRadius, "from", r.from.String(), "nas", e.NAS, "why", err.Error())
			return true
		}
		e.Login = login
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Radius.Timeout)
	defer cancel()
	if _, err := s.tell(ctx, e, r.from.String()); err != nil && !permanent(err) {
		s.metrics.dropped.WithLabelValues(dropFailed).Inc()
		return false
	}
	return true
}

func (s *Server) drop(reason, from, why string) {
	s.metrics.dropped.WithLabelValues(reason).Inc()
	s.drops.say(reason, from, why)
}
