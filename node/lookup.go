package node

import (
	"sync"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/smtpd"
)

// maxKnown bounds what knownDomains keeps: some 10 MB.
const maxKnown = 16384

// knownDomains answers the edge's look-ups from memory for customers' domains
// that it was asked for since the directory last changed. Mail comes in runs: the
// rows of a domain that gets one message are wanted for the next.
type knownDomains struct {
	rows    smtpd.Directory
	version func() uint64 // of the directory; see cluster.Node.DirectoryVersion

	mu   sync.RWMutex // guards the rest; the rows are never read under it
	at   uint64       // the version that known belongs to
	seen map[mail.Domain]directory.Destination
}

var _ smtpd.Directory = (*knownDomains)(nil)

func newKnownDomains(rows smtpd.Directory, version func() uint64) *knownDomains {
	return &knownDomains{rows: rows, version: version, seen: map[mail.Domain]directory.Destination{}}
}

// Lookup implements smtpd.Directory. What it returns is shared: read only.
func (k *knownDomains) Lookup(addr mail.Address) (directory.Destination, error) {
	// Before the rows: rows that are read after it are of this version or newer,
	// and newer ones are forgotten with it.
	version := k.version()
	domain := addr.Domain()
	k.mu.RLock()
	d, ok := k.seen[domain]
	ok = ok && k.at == version
	k.mu.RUnlock()
	if ok {
		return d, nil
	}
	d, err := k.rows.Lookup(addr)
	if err != nil || d.Kind != directory.Customer {
		return d, err // of the provider's domains the local part matters; others' are endless
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if version > k.at || len(k.seen) >= maxKnown {
		clear(k.seen)
		k.at = max(k.at, version)
	}
	if version == k.at {
		k.seen[domain] = d
	}
	return d, nil
}
