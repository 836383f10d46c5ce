package delivery

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
)

// Self is who this server is, so that it can introduce itself and knows itself
// when a route leads back to it.
type Self struct {
	Node     string // name in the cluster
	Hostname string // for EHLO

	// Listening gives the addresses on which this node takes mail; nil: none.
	Listening func() []netip.AddrPort

	// Roots verify certificates for the policy "verify"; nil: the system's.
	Roots *x509.CertPool
}

// isMe reports whether a server that greets with a name is this one. Without a
// name of our own ("localhost") nothing can be told by it.
func (s *Self) isMe(name string) bool {
	own := strings.TrimSuffix(s.Hostname, ".")
	return own != "" && !strings.EqualFold(own, "localhost") && strings.EqualFold(strings.TrimSuffix(name, "."), own)
}

// listensOn reports whether dest is one of our own listeners. local is our end
// of the connection to it, or invalid before there is one: a listener on all
// addresses is met when both ends have the same address.
func (s *Self) listensOn(dest netip.AddrPort, local netip.Addr) bool {
	if s.Listening == nil {
		return false
	}
	to, local := dest.Addr().Unmap(), local.Unmap()
	for _, own := range s.Listening() {
		a := own.Addr().Unmap()
		if own.Port() != dest.Port() {
			continue
		}
		if a == to || a.IsUnspecified() && (to == local || to.IsLoopback() || to.IsUnspecified()) {
			return true
		}
	}
	return false
}

func localAddr(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
