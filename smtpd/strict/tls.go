package strict

import (
	"context"
	"crypto/tls"
	"time"

	"bsmtpd/mail"
)

// startTLS secures the connection. Nothing that was said before counts after it
// (RFC 3207 section 4.2): go-smtp forgets it at the EHLO that must follow.
func (c *Conn) startTLS(arg []byte) error {
	switch {
	case c.cfg.TLS == nil:
		c.answer(fault(Syntax, 502, status551, "STARTTLS is not offered here"))
		return nil
	case len(arg) > 0:
		c.answer(fault(Syntax, 501, status554, "STARTTLS takes no argument"))
		return nil
	case c.secured != nil:
		c.answer(badSequence("TLS is in use already"))
		return nil
	case len(c.pending()) > 0:
		// Octets that came before the handshake are not protected by it: who
		// sat in between may have put them there.
		return fault(Handshake, 554, status551, "nothing may follow STARTTLS before the handshake").hangUp()
	}
	c.out = appendReply(c.out, mail.Reply{Code: 220, Status: status200, Text: "go ahead"})
	err := c.flush()
	if err != nil {
		return err
	}
	by := c.deadline(time.Now())
	c.raw.SetDeadline(by)
	c.readBy, c.writeBy = by, by
	t := tls.Server(c.raw, c.cfg.TLS)
	err = t.HandshakeContext(context.Background())
	c.watch.Handshake(err)
	if err != nil {
		return err
	}
	state := t.ConnectionState()
	c.conn, c.secured, c.greeted = t, &state, false
	return nil
}
