package smtpd

import (
	"fmt"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// Directory says whose mail an address is; directory.Reader does.
type Directory interface {
	Lookup(mail.Address) (directory.Destination, error)
}

var _ Directory = directory.Reader{}

// Usage says what an account holds; quota.Reader does.
type Usage interface {
	Of(mail.Login) (quota.Usage, error)
}

var _ Usage = quota.Reader{}

// edge takes mail from anybody for the domains in the directory and for nothing
// else: it is their MX.
type edge struct {
	dir    Directory
	usage  Usage
	limits func() directory.Limits
}

var _ rules = edge{}

func (e edge) mail(*session, *mail.Envelope) error { return nil }

func (e edge) rcpt(s *session, to mail.Address) (spool.QueueName, error) {
	d, err := e.dir.Lookup(to)
	if err != nil {
		s.srv.log.Error("a recipient could not be looked up", "to", string(to), "err", err)
		return "", err
	}
	switch d.Kind {
	case directory.Customer, directory.Mailbox:
	case directory.NoSuchMailbox:
		return "", refuse(reasonMailbox, 550, mail.Status{5, 1, 1}, fmt.Sprintf("<%s>: no such mailbox", to))
	default:
		return "", refuse(reasonRelay, 554, mail.Status{5, 7, 1}, fmt.Sprintf("<%s>: relay access denied", to))
	}
	a := d.Account
	if a.Inactive != "" {
		return "", refuse(reasonInactive, 550, mail.Status{5, 2, 1}, fmt.Sprintf("<%s>: the account takes no mail: %s", to, a.Inactive))
	}
	u, err := e.usage.Of(a.Login)
	if err != nil {
		s.srv.log.Error("an account's usage could not be read", "account", string(a.Login), "err", err)
		return "", err
	}
	if most := e.limits().QuotaOf(a); u.Bytes >= most {
		return "", quotaRefusal(a.Login, u.Bytes, most)
	}
	if d.Kind == directory.Mailbox {
		return spool.MailboxQueue(a.Login), nil
	}
	return spool.AccountQueue(a.Login), nil
}
