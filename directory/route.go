package directory

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"bsmtpd/mail"
)

// RouteOf is where mail for a domain of an account is pushed: the domain's route,
// else the account's, else the first fixed address on DefaultPort. d may be nil.
// The zero Route means that there is nowhere to push.
func RouteOf(a *Account, d *Domain) Route {
	var r Route
	switch {
	case d != nil && d.Route != Route{}:
		r = d.Route
	case a == nil:
		return Route{}
	case a.Route != Route{}:
		r = a.Route
	case len(a.Addresses) > 0:
		r = Route{Host: a.Addresses[0].String()}
	default:
		return Route{}
	}
	if r.Port == 0 {
		r.Port = DefaultPort
	}
	return r
}

// ParseRoute reads HOST[:PORT][/TLS]: a host name or IP address, an IPv6 address
// with a port in brackets, and one of the TLS policies none, require, verify. The
// empty string is the zero Route.
func ParseRoute(s string) (Route, error) {
	if s == "" {
		return Route{}, nil
	}
	var r Route
	rest, tls, found := strings.Cut(s, "/")
	if r.TLS = TLSPolicy(tls); found && r.TLS == "" {
		return Route{}, fmt.Errorf("route %q: a TLS policy must follow the slash: none, require or verify", s)
	}
	r.Host = rest
	if _, err := netip.ParseAddr(rest); err != nil {
		host, port, found := cutPort(rest)
		if found {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return Route{}, fmt.Errorf("route %q: port %q is not a number from 1 to 65535", s, port)
			}
			r.Port = uint16(n)
		}
		r.Host = host
	}
	r, err := checkRoute(r)
	if err != nil {
		return Route{}, err
	}
	return r, nil
}

// cutPort splits "host:port" or "[addr]:port" or "[addr]".
func cutPort(s string) (host, port string, found bool) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, rest, closed := strings.Cut(inner, "]")
		if !closed || rest != "" && rest[0] != ':' {
			return s, "", false
		}
		port, found = strings.CutPrefix(rest, ":")
		return host, port, found
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// String is the route as ParseRoute reads it.
func (r Route) String() string {
	if r == (Route{}) {
		return ""
	}
	s := r.Host
	if r.Port != 0 {
		if strings.Contains(s, ":") {
			s = "[" + s + "]"
		}
		s += ":" + strconv.Itoa(int(r.Port))
	}
	if r.TLS != "" {
		s += "/" + string(r.TLS)
	}
	return s
}

// MarshalText lets JSON carry the route as String writes it.
func (r Route) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRoute does.
func (r *Route) UnmarshalText(text []byte) error {
	v, err := ParseRoute(string(text))
	if err == nil {
		*r = v
	}
	return err
}

// checkRoute gives the canonical form: IP addresses as netip writes them, names in
// lower case.
func checkRoute(r Route) (Route, error) {
	if r == (Route{}) {
		return r, nil
	}
	if r.Host == "" {
		return r, fmt.Errorf("the route has a port or a TLS policy and no host; name the host")
	}
	switch r.TLS {
	case TLSOpportunistic, TLSNone, TLSRequire, TLSVerify:
	default:
		return r, fmt.Errorf("TLS policy %q is unknown; use none, require, verify, or nothing for opportunistic", r.TLS)
	}
	if a, err := netip.ParseAddr(r.Host); err == nil {
		if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return r, fmt.Errorf("route address %s is not one that mail can be pushed to", r.Host)
		}
		r.Host = a.Unmap().String()
		return r, nil
	}
	d, err := mail.ParseDomain(r.Host)
	if err != nil {
		return r, fmt.Errorf("route host %q is neither an IP address nor a host name: %w", r.Host, err)
	}
	// A name of digits only, "192.0.2", is a mistyped address, never a host.
	if last := string(d[strings.LastIndexByte(string(d), '.')+1:]); strings.Trim(last, "0123456789") == "" {
		return r, fmt.Errorf("route host %q is neither an IP address nor a host name", r.Host)
	}
	r.Host = string(d)
	return r, nil
}
