package node

import (
	"fmt"

	"bsmtpd/config"
	"bsmtpd/mail"
)

// What of the file descriptors that the system allows goes to whom. The log and
// the database come first: a node that cannot open its own files is of no use.
const (
	mostRowFiles  = 1000 // files of the database that are kept open, if there are plenty
	leastRowFiles = 74   // pebble keeps 64, and some for itself
	ownFiles      = 64   // the log, the listeners, what is being written
	perSession    = 3    // a connection, its temporary file, and one that is turned away meanwhile
	leastFiles    = 256
)

// fit gives c with limits for which there are file descriptors, the number of the
// database's own, and what was lowered; empty: nothing. limit 0: not known.
func fit(c config.Config, limit uint64) (_ config.Config, rows int, lowered string, err error) {
	if limit == 0 {
		return c, mostRowFiles, "", nil
	}
	if limit < leastFiles {
		return c, 0, "", mail.Fail(mail.Invalid, fmt.Sprintf("the system allows this process %d open files, and it needs %d or more: raise the limit (ulimit -n, or LimitNOFILE of the service)", limit, leastFiles))
	}
	files := int(min(limit, 1<<20))
	rows = min(max(files/4, leastRowFiles), mostRowFiles)
	rest := files - rows - ownFiles
	pushes := max(c.Delivery.ConnectionsPerAccount, 1)
	if c.SMTPD.MaxConnections*perSession+c.Delivery.Sessions*pushes+2*c.API.MaxConnections <= rest {
		return c, rows, "", nil
	}
	c.SMTPD.MaxConnections = min(c.SMTPD.MaxConnections, max(rest/2/perSession, 1))
	c.Delivery.Sessions = min(c.Delivery.Sessions, max(rest/4/pushes, 1))
	c.API.MaxConnections = min(c.API.MaxConnections, max(rest/4/2, 1))
	return c, rows, fmt.Sprintf("smtpd.max_connections is %d, delivery.sessions %d and api.max_connections %d", c.SMTPD.MaxConnections, c.Delivery.Sessions, c.API.MaxConnections), nil
}

// fitted is c as far as the system allows it. New has looked at the limit before.
func (n *Node) fitted(c *config.Config) *config.Config {
	limit := n.openFiles()
	out, _, lowered, err := fit(*c, limit)
	if err != nil {
		return c
	}
	if lowered != "" {
		n.log.Warn("the system allows fewer open files than the settings need: "+lowered+"; raise the limit (ulimit -n, or LimitNOFILE of the service), or lower the settings", "open_files", limit)
	}
	return &out
}

func (n *Node) openFiles() uint64 {
	if n.opts.Host.OpenFiles == nil {
		return 0
	}
	return n.opts.Host.OpenFiles()
}
