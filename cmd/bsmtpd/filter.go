package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

// allWord must be typed where a command is meant for every message there is.
const allWord = "ALL"

// states are those that --state takes.
var states = []string{wire.StateActive, wire.StateDeferred, wire.StateHold, wire.StateMailbox, wire.StateTrash}

// filterFlags are the flags that choose messages.
type filterFlags struct {
	account, queue, domain string
	sender, recipient      string
	older, younger         string
	larger, smaller        string
	state                  string
}

func (f *filterFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.account, "account", "", "mail of this account, queue and mailbox")
	s.StringVar(&f.queue, "queue", "", "mail in this queue: account/LOGIN, mailbox/LOGIN or out/DOMAIN")
	s.StringVar(&f.domain, "domain", "", "mail to recipients of this domain")
	s.StringVar(&f.sender, "sender", "", "mail from this sender: an address, @DOMAIN, *PART*, or <> for the empty one")
	s.StringVar(&f.recipient, "recipient", "", "mail to this recipient, written as for --sender")
	s.StringVar(&f.older, "older", "", "mail that came at least so long ago: 90s, 20m, 4h, 3d")
	s.StringVar(&f.younger, "younger", "", "mail that came at most so long ago")
	s.StringVar(&f.larger, "larger", "", "mail of at least this size: 4096, 200kB, 10MiB")
	s.StringVar(&f.smaller, "smaller", "", "mail of at most this size")
	s.StringVar(&f.state, "state", "", "mail in this state: "+strings.Join(states, ", "))
}

// filter checks what was said; a mistake is one of usage.
func (f *filterFlags) filter() (wire.Filter, error) {
	out := wire.Filter{Queue: f.queue, Sender: f.sender, Recipient: f.recipient, State: f.state}
	var err error
	if out.Account, err = parseLogin(f.account); err != nil {
		return out, err
	}
	if f.queue != "" && !isQueue(f.queue) {
		return out, usagef("--queue %s: write account/LOGIN, mailbox/LOGIN or out/DOMAIN", f.queue)
	}
	if f.domain != "" {
		d, err := mail.ParseDomain(f.domain)
		if err != nil {
			return out, usagef("--domain: %v", err)
		}
		out.Domain = string(d)
	}
	if out.MinAge, err = checkAge("--older", f.older); err != nil {
		return out, err
	}
	if out.MaxAge, err = checkAge("--younger", f.younger); err != nil {
		return out, err
	}
	if out.MinSize, err = parseSize("--larger", f.larger); err != nil {
		return out, err
	}
	if out.MaxSize, err = parseSize("--smaller", f.smaller); err != nil {
		return out, err
	}
	if f.state != "" && !slices.Contains(states, f.state) {
		return out, usagef("--state %s: use %s", f.state, strings.Join(states, ", "))
	}
	return out, nil
}

// isQueue reports whether a name can be that of a queue.
func isQueue(s string) bool {
	kind, name, _ := strings.Cut(s, "/")
	var err error
	switch kind {
	case "account", "mailbox":
		_, err = mail.ParseLogin(name)
	case "out":
		_, err = mail.ParseDomain(name)
	default:
		return false
	}
	return err == nil
}

// checkRoute finds a mistake in --route before the server does.
func checkRoute(s string) error {
	if _, err := directory.ParseRoute(s); err != nil {
		return usagef("--route: %v", err)
	}
	return nil
}

// parseLogin reads a login of the command line; empty stays empty.
func parseLogin(s string) (mail.Login, error) {
	if s == "" {
		return "", nil
	}
	l, err := mail.ParseLogin(s)
	if err != nil {
		return "", usagef("%v", err)
	}
	return l, nil
}

func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := mail.ParseSize(s)
	if err != nil {
		return 0, usagef("%s: %v", flag, err)
	}
	return int64(n), nil
}

// checkAge gives an age in the form that the API reads.
func checkAge(flag, s string) (string, error) {
	if s == "" {
		return "", nil
	}
	d, err := parseAge(s)
	if err != nil {
		return "", usagef("%s: %v", flag, err)
	}
	return d.String(), nil
}

// parseAge reads a duration such as 90s, 20m, 4h, 3d or 2w, a whole number with
// one unit, or what package time reads.
func parseAge(s string) (time.Duration, error) {
	units := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	if n := len(s) - 1; n > 0 {
		if unit, ok := units[s[n:]]; ok {
			count, err := strconv.ParseUint(s[:n], 10, 16)
			if err != nil {
				return 0, usagef("%q is not a duration; write for example 90s, 20m, 4h or 3d", s)
			}
			return time.Duration(count) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usagef("%q is not a duration; write for example 90s, 20m, 4h or 3d", s)
	}
	return d, nil
}
