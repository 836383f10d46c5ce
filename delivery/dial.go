package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"bsmtpd/host"
	"bsmtpd/mail"
)

// client makes the connections of one session.
type client struct {
	host    host.Host
	self    *Self
	cfg     *Config
	sources *sources
	turn    uint64
	chance  *chance
	limiter *rate.Limiter

	life context.Context // of the session: when it ends, its connections are closed

	connected func() // is told of every connection that stands
	watches   *watches
}

// chance is a stream of randomness for many goroutines.
type chance struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func (c *chance) shuffle(n int, swap func(i, j int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rng.Shuffle(n, swap)
}

// connect tries a target's hosts and their addresses in order until one greets.
func (c *client) connect(ctx context.Context, t target) (*conn, *refusal) {
	var last *refusal
	missing, tried := 0, 0
	for _, name := range t.hosts {
		addrs, err := c.addrs(ctx, name)
		if err != nil {
			if host.IsNotFound(err) {
				missing++
			}
			last = &refusal{err: fmt.Errorf("host %s: %w", name, host.Plain(err))}
			continue
		}
		for _, a := range addrs {
			if tried++; tried > maxPlaces {
				return nil, last
			}
			conn, ref := c.try(ctx, t, name, netip.AddrPortFrom(a, t.port))
			switch {
			case ref == nil:
				return conn, nil
			case ctx.Err() != nil:
				return nil, ref
			case ref.loop && t.out && last == nil:
				return nil, loopsOut(mail.Domain(t.text))
			case ref.loop && t.out:
				return nil, last // servers that are preferred to us were tried
			}
			last = ref
		}
	}
	if t.out && missing == len(t.hosts) {
		if t.mx {
			return nil, final(550, mail.Status{5, 4, 4}, "domain %s: its mail servers do not exist in DNS: %s", t.text, last)
		}
		return nil, final(550, mail.Status{5, 1, 2}, "domain %s does not exist, or has no mail server: %s", t.text, last)
	}
	return nil, last
}

// addrs looks up a host, unless it is an address already.
func (c *client) addrs(ctx context.Context, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	addrs, err := c.host.DNS.Addrs(ctx, name)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("it has no address")
	}
	return addrs, err
}

// try dials one address and greets; once more without TLS if TLS is broken there
// and the route allows that.
func (c *client) try(ctx context.Context, t target, name string, dest netip.AddrPort) (*conn, *refusal) {
	tls := tlsChoice{policy: t.tls, host: name}
	for {
		conn, ref := c.dial(ctx, name, dest)
		if ref != nil {
			return nil, ref
		}
		stopped := context.AfterFunc(ctx, func() { conn.raw.Close() })
		ref = conn.greet(ctx, c.self, tls)
		if stopped() && ref == nil {
			return conn, nil
		}
		conn.close()
		if ref == nil {
			return nil, &refusal{remote: dest.String(), err: errStop}
		}
		if !ref.noTLS || tls.broken {
			return nil, ref
		}
		tls.broken = true
	}
}

func (c *client) dial(ctx context.Context, name string, dest netip.AddrPort) (*conn, *refusal) {
	dest = netip.AddrPortFrom(dest.Addr().Unmap(), dest.Port())
	refuse := func(err error) *refusal { return &refusal{remote: dest.String(), err: err, loop: err == errLoop} }
	if c.self.listensOn(dest, netip.Addr{}) {
		return nil, refuse(errLoop)
	}
	src, ok := c.sources.pick(c.turn, dest.Addr())
	if !ok {
		return nil, refuse(fmt.Errorf("no source address of the family of %s is configured", dest.Addr()))
	}
	dctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	nc, err := c.host.Net.Dial(dctx, "tcp", src, dest.String())
	if err != nil {
		if dctx.Err() != nil && ctx.Err() == nil {
			return nil, refuse(fmt.Errorf("no connection to %s within %s", dest, c.cfg.ConnectTimeout))
		}
		return nil, refuse(fmt.Errorf("connect to %s: %w", dest, host.Plain(err)))
	}
	if c.self.listensOn(dest, localAddr(nc)) {
		nc.Close()
		return nil, refuse(errLoop)
	}
	if c.connected != nil {
		c.connected()
	}
	conn := newConn(c.life, nc, c.cfg, c.limiter)
	conn.leave = c.watches.add(conn.watch)
	conn.host, conn.remote = name, dest
	return conn, nil
}
