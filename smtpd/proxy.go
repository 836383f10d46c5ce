package smtpd

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

const (
	proxyTimeout = 5 * time.Second
	proxyBuffer  = 4 << 10
)

// readProxy reads the PROXY protocol header that a load balancer must send
// first. It returns the true client's address, which is the invalid Addr for a
// connection of the balancer's own (a health check), and what was read beyond
// the header.
func readProxy(c net.Conn) (client netip.Addr, beyond []byte, err error) {
	c.SetReadDeadline(time.Now().Add(proxyTimeout))
	r := bufio.NewReaderSize(c, proxyBuffer)
	h, err := proxyproto.Read(r)
	if errors.Is(err, proxyproto.ErrNoProxyProtocol) {
		return client, nil, errors.New("no PROXY header; proxies lists this address, so one is required")
	}
	if err != nil {
		return client, nil, fmt.Errorf("bad PROXY header: %w", err)
	}
	beyond, _ = r.Peek(r.Buffered())
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return client, beyond, nil
	}
	src, _, ok := h.TCPAddrs()
	if !ok {
		return client, nil, errors.New("the PROXY header names no TCP address")
	}
	client, ok = netip.AddrFromSlice(src.IP)
	if !ok {
		return client, nil, errors.New("the PROXY header names no IP address")
	}
	return client.Unmap(), beyond, nil
}

// remoteAddr is the address on the other end of c, or the invalid Addr where the
// network has other names.
func remoteAddr(c net.Conn) netip.Addr {
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	p, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}
