package node

import (
	"bsmtpd/bounce"
	"bsmtpd/cluster"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// replicated is the cluster as the API wants to see it.
type replicated struct{ *cluster.Node }

// Settings are those in force.
func (r replicated) Settings() (spool.Settings, directory.Limits) {
	s := r.Node.Settings()
	return s.Spool, s.Limits
}

// places says where a notification to one of our own customers goes.
type places struct{ node *cluster.Node }

var _ bounce.Resolver = places{}

// Resolve implements bounce.Resolver.
func (p places) Resolve(to mail.Address) (bounce.Place, bool, error) {
	d, err := p.node.Directory().Lookup(to)
	if err != nil {
		return bounce.Place{}, false, err
	}
	switch d.Kind {
	case directory.Unknown:
		return bounce.Place{}, false, nil
	case directory.NoSuchMailbox:
		return bounce.Place{}, true, mail.Fail(mail.NotFound, "there is no mailbox "+string(to))
	}
	place := bounce.Place{Locale: bounce.Locale(d.Account.Locale), Queue: spool.AccountQueue(d.Account.Login)}
	if d.Kind == directory.Mailbox {
		place.Queue = spool.MailboxQueue(d.Account.Login)
	}
	return place, true, nil
}

func (r replicated) limits() directory.Limits { return r.Node.Settings().Limits }

func (r replicated) spoolSettings() spool.Settings { return r.Node.Settings().Spool }
