package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
)

const maxBannerBytes = 1024

// probe is what a route said when it was tried.
type probe struct {
	remote string // address:port
	banner string // its first line, as it was sent
	err    error
}

// probeRoute connects to a route as a push would, reads the banner and leaves.
func (s *Server) probeRoute(ctx context.Context, route directory.Route) probe {
	ctx, cancel := context.WithTimeout(ctx, s.config().ProbeTimeout)
	defer cancel()
	target, err := s.resolve(ctx, route)
	if err != nil {
		return probe{err: err}
	}
	p := probe{remote: target.String()}
	conn, err := s.deps.Host.Net.Dial(ctx, "tcp", s.sourceFor(target.Addr()), target.String())
	if err != nil {
		p.err = host.Plain(err)
		return p
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	line, err := bufio.NewReader(io.LimitReader(conn, maxBannerBytes)).ReadString('\n')
	p.banner = strings.TrimRight(line, "\r\n")
	if err != nil {
		p.err = fmt.Errorf("connected, but no banner came: %w", host.Plain(err))
		return p
	}
	io.WriteString(conn, "QUIT\r\n")
	return p
}

// resolve gives the first address of a route.
func (s *Server) resolve(ctx context.Context, route directory.Route) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(route.Host); err == nil {
		return netip.AddrPortFrom(a, route.Port), nil
	}
	addrs, err := s.deps.Host.DNS.Addrs(ctx, route.Host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("look up %s: %w", route.Host, host.Plain(err))
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), route.Port), nil
}

// sourceFor is the configured source address of a target's family.
func (s *Server) sourceFor(target netip.Addr) netip.Addr {
	for _, a := range s.deps.Sources() {
		if a.Is4() == target.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// isPIX reports a banner that a PIX firewall with "fixup protocol smtp" has
// masked: it leaves 2, 0, 5 and spaces and makes asterisks of the rest (B18).
func isPIX(banner string) bool {
	text, ok := strings.CutPrefix(banner, "220")
	return ok && strings.Count(text, "*") >= 3 && strings.Trim(text, "*025 -") == ""
}

// reachAdvice turns a failure to connect into something to do.
func reachAdvice(err error, route directory.Route) string {
	port := strconv.Itoa(int(route.Port))
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "nothing answered: the line is down, or a firewall drops port " + port + "; ask the customer to let in the addresses of 'delivery sources'"
	case strings.Contains(err.Error(), "refused"):
		return "the machine is up and nothing listens on port " + port + ": the customer's mail server must be started or told to listen there"
	}
	return "check the route, and with the customer that the server is on and reachable"
}

// ago is a duration as people say it.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
