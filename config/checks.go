package config

import (
	"fmt"
	"net"
	"time"

	"bsmtpd/mail"
)

// checks collects the errors of a Check.
type checks []error

func (c *checks) when(wrong bool, key, format string, args ...any) {
	if wrong {
		*c = append(*c, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
}

func (c *checks) between(key string, d, least, most time.Duration) {
	c.when(d < least || d > most, key, "%s is not allowed; use %s to %s",
		formatDuration(d), formatDuration(least), formatDuration(most))
}

func (c *checks) sizeBetween(key string, s, least, most mail.Size) {
	c.when(s < least || s > most, key, "%s is not allowed; use %s to %s", s, least, most)
}

func (c *checks) domain(key, name string) {
	if _, err := mail.ParseDomain(name); err != nil {
		c.when(true, key, "%s", err)
	}
}

// addresses reports a TCP address that would be listened on twice: by the list,
// or by another key. Port 0 is a new port each time.
func (c *checks) addresses(key string, list []string, otherKey, other string) {
	seen := map[string]bool{}
	listen := func(key, a string) {
		_, port, _ := net.SplitHostPort(a)
		c.when(seen[a] && a != "" && port != "0", key, "%q is listened on already; choose another port, or remove one", a)
		seen[a] = true
	}
	for i, a := range list {
		listen(fmt.Sprintf("%s[%d]", key, i), a)
	}
	listen(otherKey, other)
}

// validName reports a name that can stand in addresses, files and labels.
func validName(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 63
}
