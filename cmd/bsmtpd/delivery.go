package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
)

func deliveryCommand(a *app) *cobra.Command {
	return group("delivery", "stop and start pushing; where pushes come from",
		"While delivery is suspended mail is still taken in and kept.",
		deliverySuspend(a), deliveryResume(a), deliveryList(a), deliverySources(a))
}

// scopeFlags say what a suspension covers.
type scopeFlags struct{ account, domain string }

func (f *scopeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.account, "account", "", "pushes to this customer")
	c.Flags().StringVar(&f.domain, "domain", "", "mail to this domain of the world")
}

// scope is what was said: "all", a queue's name, or the flags' queue.
func (f *scopeFlags) scope(args []string) (string, error) {
	var said []string
	if f.account != "" {
		login, err := parseLogin(f.account)
		if err != nil {
			return "", err
		}
		said = append(said, "account/"+string(login))
	}
	if f.domain != "" {
		d, err := parseDomain(f.domain)
		if err != nil {
			return "", err
		}
		said = append(said, "out/"+string(d))
	}
	for _, arg := range args {
		if !strings.EqualFold(arg, "all") && !strings.HasPrefix(arg, "account/") && !strings.HasPrefix(arg, "out/") {
			return "", usagef("%q: use all, account/LOGIN or out/DOMAIN", arg)
		}
		if strings.EqualFold(arg, "all") {
			arg = "all"
		}
		said = append(said, arg)
	}
	if len(said) != 1 {
		return "", usagef("say what: all, account/LOGIN, out/DOMAIN, --account LOGIN or --domain DOMAIN")
	}
	return said[0], nil
}

func deliverySuspend(a *app) *cobra.Command {
	var f scopeFlags
	var why, during string
	c := &cobra.Command{
		Use:   "suspend {all | account/LOGIN | out/DOMAIN}",
		Short: "stop pushing; mail is still taken in",
		Example: `  bsmtpd delivery suspend all --reason "moving the racks" --for 2h
  bsmtpd delivery suspend --account jansen`,
		Args: atMost("SCOPE"),
		RunE: func(c *cobra.Command, args []string) error {
			scope, err := f.scope(args)
			if err != nil {
				return err
			}
			s := wire.Suspension{Scope: scope, Reason: why}
			if during != "" {
				d, err := parseAge(during)
				if err != nil {
					return usagef("--for: %v", err)
				}
				s.Until = time.Now().Add(d)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := cl.Suspend(c.Context(), s); err != nil {
				return err
			}
			return a.say(s, "delivery of %s suspended; lift it with \"bsmtpd delivery resume %s\"", scope, scope)
		},
	}
	f.add(c)
	c.Flags().StringVar(&why, "reason", "", "why; shown to everybody who looks")
	c.Flags().StringVar(&during, "for", "", "resume by itself after so long: 30m, 2h, 1d (default: never)")
	return c
}

func deliveryResume(a *app) *cobra.Command {
	var f scopeFlags
	c := &cobra.Command{
		Use:     "resume {all | account/LOGIN | out/DOMAIN}",
		Short:   "push again",
		Example: "  bsmtpd delivery resume all",
		Args:    atMost("SCOPE"),
		RunE: func(c *cobra.Command, args []string) error {
			scope, err := f.scope(args)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := cl.Resume(c.Context(), scope); err != nil {
				return err
			}
			return a.say(map[string]string{"resumed": scope}, "delivery of %s resumed", scope)
		},
	}
	f.add(c)
	return c
}

func deliveryList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "list the suspensions in force",
		Example: "  bsmtpd delivery list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			rules, err := cl.Suspensions(c.Context())
			if err != nil {
				return err
			}
			t := newTable(a.out, "SCOPE", "BY", "SINCE", "UNTIL", "REASON")
			for _, s := range rules {
				if a.json() {
					if err := a.line(s); err != nil {
						return err
					}
					continue
				}
				t.row(s.Scope, s.By, moment(s.At), moment(s.Until), s.Reason)
			}
			if len(rules) == 0 && !a.json() {
				a.note("nothing is suspended")
			}
			return t.end()
		},
	}
}

func deliverySources(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "sources [FOR]",
		Short: "show the addresses that pushes come from, and how a customer lets them in",
		Example: `  bsmtpd delivery sources
  bsmtpd delivery sources postfix`,
		Args: atMost("FOR"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			s, err := cl.Sources(c.Context())
			if err != nil {
				return err
			}
			none := len(s.Addresses) == 0
			const chosen = "no source addresses are configured (delivery.source_addresses): the system chooses"
			if len(args) == 1 {
				if none {
					return a.nothing(chosen)
				}
				var known []string
				for _, sn := range s.Snippets {
					if sn.For == args[0] {
						return a.say(sn, "%s", strings.TrimRight(sn.Text, "\n"))
					}
					known = append(known, sn.For)
				}
				return a.nothing("nothing is known for %q; there is %s", args[0], strings.Join(known, ", "))
			}
			if a.json() {
				return a.line(s)
			}
			if none {
				a.note(chosen)
			}
			for _, addr := range s.Addresses {
				fmt.Fprintln(a.out, addr)
			}
			for _, sn := range s.Snippets {
				fmt.Fprintf(a.out, "\n--- %s ---\n%s\n", sn.For, strings.TrimRight(sn.Text, "\n"))
			}
			return nil
		},
	}
}
