package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func domainCommand(a *app) *cobra.Command {
	return group("domain", "the customers' mail domains", "",
		domainAdd(a), domainSet(a), domainList(a), domainShow(a), domainRemove(a), domainCheck(a))
}

func parseDomain(s string) (mail.Domain, error) {
	d, err := mail.ParseDomain(s)
	if err != nil {
		return "", usagef("%v", err)
	}
	return d, nil
}

const routeHelp = "where its mail is pushed, HOST[:PORT][/none|/require|/verify] (default: the account's route)"

func domainAdd(a *app) *cobra.Command {
	var account, route string
	c := &cobra.Command{
		Use:   "add DOMAIN --account LOGIN",
		Short: "take mail for a domain, for a customer",
		Example: `  bsmtpd domain add jansen.example --account jansen
  bsmtpd domain add jansen.example --account jansen --route mail.jansen.example:2525`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := parseDomain(args[0])
			if err != nil {
				return err
			}
			if account == "" {
				return usagef("say whose domain it is: --account LOGIN")
			}
			login, err := parseLogin(account)
			if err != nil {
				return err
			}
			if err := checkRoute(route); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			put, err := cl.AddDomain(c.Context(), wire.Domain{Name: name, Login: login, Route: route})
			if err != nil {
				return err
			}
			return a.say(put, "domain %s added to account %s", name, login)
		},
	}
	c.Flags().StringVar(&account, "account", "", "login of the customer")
	c.Flags().StringVar(&route, "route", "", routeHelp)
	return c
}

func domainSet(a *app) *cobra.Command {
	var account, route string
	c := &cobra.Command{
		Use:   "set DOMAIN",
		Short: "change a domain's route, or give it to another customer",
		Long: `Change a domain. Mail that is queued already follows a new route. --route "" goes
back to the account's route.`,
		Example: `  bsmtpd domain set jansen.example --route new.jansen.example
  bsmtpd domain set jansen.example --account devries`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := parseDomain(args[0])
			if err != nil {
				return err
			}
			if !anyGiven(c) {
				return usagef("say what to change: --route or --account")
			}
			var patch wire.DomainPatch
			if c.Flags().Changed("route") {
				patch.Route = &route
			}
			if c.Flags().Changed("account") {
				login, err := mail.ParseLogin(account)
				if err != nil {
					return usagef("--account: %v", err)
				}
				patch.Login = &login
			}
			if err := checkRoute(route); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			put, err := cl.SetDomain(c.Context(), name, patch)
			if err != nil {
				return err
			}
			return a.say(put, "domain %s changed", name)
		},
	}
	c.Flags().StringVar(&account, "account", "", "login of the customer whose it is from now on")
	c.Flags().StringVar(&route, "route", "", routeHelp)
	return c
}

func domainList(a *app) *cobra.Command {
	var account string
	var names bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "list domains, in order of name",
		Example: "  bsmtpd domain list --account jansen",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			login, err := parseLogin(account)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			t := newTable(a.out, "DOMAIN", "ACCOUNT", "ROUTE", "CHANGED")
			n := 0
			for d, err := range cl.Domains(c.Context(), login, client.Page{}) {
				if err != nil {
					return err
				}
				n++
				switch {
				case names:
					fmt.Fprintln(a.out, d.Name)
				case a.json():
					if err := a.line(d); err != nil {
						return err
					}
				default:
					t.row(string(d.Name), string(d.Login), d.Route, moment(d.Changed))
				}
			}
			if n == 0 && !a.json() && !names {
				a.note("there are no domains; add one with \"bsmtpd domain add DOMAIN --account LOGIN\"")
			}
			return t.end()
		},
	}
	c.Flags().StringVar(&account, "account", "", "only this customer's")
	c.Flags().BoolVarP(&names, "quiet", "q", false, "print names only")
	return c
}

func domainShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show DOMAIN",
		Short:   "show one domain",
		Example: "  bsmtpd domain show jansen.example",
		Args:    exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := parseDomain(args[0])
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			d, err := cl.Domain(c.Context(), name)
			if err != nil {
				return err
			}
			if a.json() {
				return a.line(d)
			}
			now := time.Now()
			p := a.sheet()
			p.line("domain", string(d.Name))
			p.line("account", string(d.Login))
			p.line("route", d.Route)
			p.line("created", since(now, d.Created))
			p.line("changed", since(now, d.Changed))
			return p.end()
		},
	}
}

func domainRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove DOMAIN...",
		Short:   "take no more mail for domains; what is queued stays queued",
		Example: "  bsmtpd domain remove jansen.example",
		Args:    atLeast("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, arg := range args {
				name, err := parseDomain(arg)
				if err != nil {
					return err
				}
				if err := cl.RemoveDomain(c.Context(), name); err != nil {
					return err
				}
				if err := a.say(map[string]mail.Domain{"removed": name}, "domain %s removed", name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func domainCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check DOMAIN...",
		Short: "see whether DNS points here and where mail would go",
		Long: `See whether a domain's mail comes here (its MX records) and where it would be
pushed. Exit code 1: something is bad.`,
		Example: "  bsmtpd domain check jansen.example",
		Args:    atLeast("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var bad []string
			for _, arg := range args {
				name, err := parseDomain(arg)
				if err != nil {
					return err
				}
				d, err := cl.CheckDomain(c.Context(), name)
				if err != nil {
					return err
				}
				if d.Verdict == wire.Bad {
					bad = append(bad, string(name))
				}
				if a.json() {
					if err := a.line(d); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(a.out, "%s (account %s), pushed to %s\n", d.Domain, d.Login, harmless(d.Route))
				for _, mx := range d.MX {
					fmt.Fprintf(a.out, "  MX %s\n", harmless(mx))
				}
				a.showChecks(d.Checks)
			}
			if len(bad) > 0 {
				return fmt.Errorf("mail for %s does not come here or cannot be pushed", strings.Join(bad, ", "))
			}
			return nil
		},
	}
}
