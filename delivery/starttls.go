package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"bsmtpd/directory"
	"bsmtpd/mail"
)

// encrypt obeys the route's TLS policy (RFC 3207). Towards a customer's server
// encryption without a known certificate is better than none, so the
// opportunistic policy takes any certificate, and old versions of TLS too.
func (c *conn) encrypt(ctx context.Context, self *Self, t tlsChoice) *refusal {
	must := t.policy == directory.TLSRequire || t.policy == directory.TLSVerify
	switch {
	case t.policy == directory.TLSNone, t.broken && !must:
		return nil
	case !c.ext.startTLS && must:
		return c.refuse(mail.Reply{}, fmt.Errorf("the route's TLS policy is %q and the server offers no STARTTLS", t.policy))
	case !c.ext.startTLS:
		return nil
	}
	a, err := c.ask("STARTTLS")
	switch {
	case err != nil:
		return c.unencrypted(must, err)
	case a.Code != 220 && must:
		return c.refuse(a.Reply, errors.New("STARTTLS was refused"))
	case a.Code != 220:
		return nil
	case c.r.Buffered() > 0:
		return c.unencrypted(must, &nonsense{"the server sent more than the answer to STARTTLS"})
	}
	tc := tls.Client(c.raw, tlsConfig(self, t))
	if err := tc.HandshakeContext(ctx); err != nil {
		return c.unencrypted(must, fmt.Errorf("TLS: %w", c.explain(err)))
	}
	c.net, c.secure = tc, true
	c.buffer()
	c.watch.kick()
	return c.hello(self, "") // RFC 3207 section 4.2: forget all, say EHLO again
}

// unencrypted asks for a new connection without TLS, where that is allowed.
func (c *conn) unencrypted(must bool, err error) *refusal {
	r := c.refuse(mail.Reply{}, err)
	r.noTLS = !must
	return r
}

func tlsConfig(self *Self, t tlsChoice) *tls.Config {
	if t.policy == directory.TLSVerify {
		return &tls.Config{ServerName: t.host, RootCAs: self.Roots, MinVersion: tls.VersionTLS12}
	}
	return &tls.Config{ServerName: t.host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
}
