package main

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func loginCommand(a *app) *cobra.Command {
	return group("login", "tell that a customer came online; see who is", "", loginSend(a), loginList(a))
}

// events are those that login send can tell.
var events = []string{"start", "stop", "interim"}

func loginSend(a *app) *cobra.Command {
	var ev wire.LoginEvent
	c := &cobra.Command{
		Use:   "send LOGIN",
		Short: "tell a login event, as RADIUS would",
		Example: `  bsmtpd login send jansen --address 192.0.2.10
  bsmtpd login send jansen --event stop`,
		Args: exactly("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if ev.Login, err = parseLogin(args[0]); err != nil {
				return err
			}
			if !slices.Contains(events, ev.Event) {
				return usagef("--event %s: use %s", ev.Event, strings.Join(events, ", "))
			}
			if _, err := netip.ParseAddr(ev.Address); ev.Address != "" && err != nil {
				return usagef("--address %q is not an IP address", ev.Address)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			r, err := cl.SendLogin(c.Context(), ev)
			if err != nil {
				return err
			}
			if r.Unknown {
				return mail.Fail(mail.NotFound, fmt.Sprintf("there is no account %s", r.Login))
			}
			return a.say(r, "%s", loginText(&r))
		},
	}
	f := c.Flags()
	f.StringVar(&ev.Address, "address", "", "IP address that the customer got")
	f.StringVar(&ev.Event, "event", "start", strings.Join(events, ", "))
	f.StringVar(&ev.NAS, "nas", "", "access server")
	f.StringVar(&ev.Session, "session", "", "session identifier; the same event of one session counts once")
	return c
}

// loginText says what an event led to.
func loginText(r *wire.LoginResult) string {
	text := fmt.Sprintf("%s is offline", r.Login)
	if r.Online {
		text = fmt.Sprintf("%s is online", r.Login)
	}
	text += fmt.Sprintf("; %s waiting", plural(r.Queued, "message"))
	switch {
	case r.Duplicate:
		text += "; this event was known already"
	case r.Debounced:
		text += "; debounced: the last attempt by login is too recent, the timer still applies"
	case r.Triggered:
		text += "; a push starts now"
	}
	if r.Double != "" {
		text += "; double login: " + doubleText(r.Double)
	}
	return text
}

func loginList(a *app) *cobra.Command {
	var online, double bool
	c := &cobra.Command{
		Use:   "list [LOGIN]",
		Short: "list who is or was online",
		Example: `  bsmtpd login list --online
  bsmtpd login list --double`,
		Args: atMost("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				login, err := parseLogin(args[0])
				if err != nil {
					return err
				}
				p, err := cl.Login(c.Context(), login)
				if err != nil {
					return err
				}
				return a.showPresence(func(yield func(wire.Presence, error) bool) { yield(p, nil) })
			}
			return a.showPresence(cl.Logins(c.Context(), online, double, client.Page{}))
		},
	}
	c.Flags().BoolVar(&online, "online", false, "only who is online now")
	c.Flags().BoolVar(&double, "double", false, "only double logins")
	return c
}

// showPresence writes who is online.
func (a *app) showPresence(seq iter.Seq2[wire.Presence, error]) error {
	now := time.Now()
	t := newTable(a.out, "LOGIN", "ONLINE", "SINCE", "LAST EVENT", "ADDRESS", "DOUBLE LOGIN")
	for p, err := range seq {
		if err != nil {
			return err
		}
		if a.json() {
			if err := a.line(p); err != nil {
				return err
			}
			continue
		}
		var addresses []string
		for _, s := range p.Sessions {
			if s.Online {
				addresses = append(addresses, s.Address)
			}
		}
		state := yesNo(p.Online)
		if p.Missed {
			state = "until a Stop was missed"
		}
		t.row(string(p.Login), state, moment(p.Since), age(now, p.Last)+" ago", strings.Join(addresses, " "), doubleText(p.Double))
	}
	if t.count == 0 && !a.json() {
		a.note("there is nobody to show")
	}
	return t.end()
}
