package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func accountCommand(a *app) *cobra.Command {
	return group("account", "the customers: add, change, show, explain, import and export", "",
		accountAdd(a), accountSet(a), accountList(a), accountShow(a), accountRemove(a),
		accountExplain(a), accountImport(a), accountExport(a))
}

// accountFlags are the flags that describe an account.
type accountFlags struct {
	addresses, aliases            []string
	addAddresses, removeAddresses []string
	addAliases, removeAliases     []string
	route, quota, plan, access    string
	contact, locale, inactive     string
	active, filtered              bool
}

func (f *accountFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringArrayVar(&f.addresses, "address", nil, "fixed IP address; once for each")
	s.StringArrayVar(&f.aliases, "alias", nil, "local part beside the login at the provider's domains; once for each")
	s.StringVar(&f.route, "route", "", "where mail is pushed: HOST[:PORT][/none|/require|/verify], the last part about TLS (default: the first fixed address, port 25)")
	s.StringVar(&f.quota, "quota", "", "most that queue and mailbox hold together: 20MiB, 1GiB; 0: the server's default")
	s.StringVar(&f.plan, "plan", "", "free or paid")
	s.StringVar(&f.access, "access", "", "the customer's line: dialup, isdn or adsl")
	s.StringVar(&f.contact, "contact", "", "mail address of the technical contact")
	s.StringVar(&f.locale, "locale", "", "language of messages to the customer: en or nl")
	s.StringVar(&f.inactive, "inactive", "", "take no mail for the account, for this reason")
	s.BoolVar(&f.filtered, "filtered", false, "the spam filter is on, which raises the default quota")
}

// check finds what the server would refuse as well, so that a typing mistake is
// one of usage.
func (f *accountFlags) check() error {
	for _, list := range [][]string{f.addresses, f.addAddresses, f.removeAddresses} {
		for _, s := range list {
			if _, err := netip.ParseAddr(s); err != nil {
				return usagef("address %q is not an IP address", s)
			}
		}
	}
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{{"plan", f.plan, []string{"free", "paid"}}, {"access", f.access, []string{"dialup", "isdn", "adsl"}}, {"locale", f.locale, []string{"en", "nl"}}} {
		if c.value != "" && !slices.Contains(c.allowed, c.value) {
			return usagef("--%s %s: use %s", c.flag, c.value, strings.Join(c.allowed, ", "))
		}
	}
	if _, err := mail.ParseAddress(f.contact); f.contact != "" && err != nil {
		return usagef("--contact: %v", err)
	}
	if err := checkRoute(f.route); err != nil {
		return err
	}
	_, err := parseSize("--quota", f.quota)
	return err
}

func accountAdd(a *app) *cobra.Command {
	var f accountFlags
	c := &cobra.Command{
		Use:   "add LOGIN",
		Short: "add a customer",
		Example: `  bsmtpd account add jansen --address 192.0.2.10
  bsmtpd account add devries --route mail.devries.example:2525 --quota 1GiB --plan paid --locale nl`,
		Args: exactly("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			login, err := parseLogin(args[0])
			if err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			quota, _ := parseSize("--quota", f.quota)
			cl, err := a.client()
			if err != nil {
				return err
			}
			put, err := cl.AddAccount(c.Context(), wire.Account{Login: login, Addresses: f.addresses, Plan: f.plan, Quota: quota,
				Contact: mail.Address(f.contact), Locale: f.locale, Access: f.access, Inactive: f.inactive, Route: f.route,
				Aliases: f.aliases, Filtered: f.filtered})
			if err != nil {
				return err
			}
			return a.say(put, "account %s added", login)
		},
	}
	f.add(c)
	return c
}

func accountSet(a *app) *cobra.Command {
	var f accountFlags
	c := &cobra.Command{
		Use:   "set LOGIN...",
		Short: "change customers",
		Long: `Change what is said and leave the rest. --address and --alias replace the whole
list; --add-address, --remove-address and so on change one item.`,
		Example: `  bsmtpd account set jansen --quota 1GiB
  bsmtpd account set jansen --route mail.jansen.example --add-address 192.0.2.11
  bsmtpd account set jansen --inactive "bill not paid"
  bsmtpd account set jansen --active`,
		Args: atLeast("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			patch, err := f.patch(c)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, arg := range args {
				login, err := parseLogin(arg)
				if err != nil {
					return err
				}
				put, err := cl.SetAccount(c.Context(), login, patch)
				if err != nil {
					return err
				}
				if err := a.say(put, "account %s changed", login); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c)
	s := c.Flags()
	s.StringArrayVar(&f.addAddresses, "add-address", nil, "one more fixed IP address")
	s.StringArrayVar(&f.removeAddresses, "remove-address", nil, "a fixed IP address that is no longer the account's")
	s.StringArrayVar(&f.addAliases, "add-alias", nil, "one more alias")
	s.StringArrayVar(&f.removeAliases, "remove-alias", nil, "an alias that goes")
	s.BoolVar(&f.active, "active", false, "take mail again")
	return c
}

// patch holds the flags that were given.
func (f *accountFlags) patch(c *cobra.Command) (wire.AccountPatch, error) {
	p := wire.AccountPatch{AddAddresses: f.addAddresses, RemoveAddresses: f.removeAddresses,
		AddAliases: f.addAliases, RemoveAliases: f.removeAliases}
	if err := f.check(); err != nil {
		return p, err
	}
	given := c.Flags().Changed
	if !anyGiven(c) {
		return p, usagef("say what to change; see \"%s --help\"", c.CommandPath())
	}
	if f.active && given("inactive") {
		return p, usagef("--active and --inactive contradict each other")
	}
	for flag, to := range map[string]struct {
		from *string
		to   **string
	}{"plan": {&f.plan, &p.Plan}, "locale": {&f.locale, &p.Locale}, "access": {&f.access, &p.Access},
		"route": {&f.route, &p.Route}, "inactive": {&f.inactive, &p.Inactive}} {
		if given(flag) {
			*to.to = to.from
		}
	}
	if f.active {
		p.Inactive = new(string)
	}
	if given("address") {
		p.Addresses = &f.addresses
	}
	if given("alias") {
		p.Aliases = &f.aliases
	}
	if given("contact") {
		contact := mail.Address(f.contact)
		p.Contact = &contact
	}
	if given("filtered") {
		p.Filtered = &f.filtered
	}
	if given("quota") {
		quota, err := parseSize("--quota", f.quota)
		if err != nil {
			return p, err
		}
		p.Quota = &quota
	}
	return p, nil
}

// anyGiven reports whether a flag of the command itself was said.
func anyGiven(c *cobra.Command) bool {
	any := false
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { any = any || f.Changed })
	return any
}

func accountList(a *app) *cobra.Command {
	var logins bool
	c := &cobra.Command{
		Use:   "list",
		Short: "list customers, in order of login",
		Example: `  bsmtpd account list
  bsmtpd account list -o json | jq -r 'select(.inactive) | .login'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			t := newTable(a.out, "LOGIN", "PLAN", "ACCESS", "ADDRESSES", "ROUTE", ">QUOTA", "LOCALE", "STATE")
			n := 0
			for acc, err := range cl.Accounts(c.Context(), client.Page{}) {
				if err != nil {
					return err
				}
				n++
				switch {
				case logins:
					fmt.Fprintln(a.out, acc.Login)
				case a.json():
					if err := a.line(acc); err != nil {
						return err
					}
				default:
					t.row(string(acc.Login), acc.Plan, acc.Access, strings.Join(acc.Addresses, " "), acc.Route, quotaText(acc.Quota),
						acc.Locale, activeText(acc.Inactive))
				}
			}
			if n == 0 && !a.json() && !logins {
				a.note("there are no accounts; add one with \"bsmtpd account add LOGIN\"")
			}
			return t.end()
		},
	}
	c.Flags().BoolVarP(&logins, "quiet", "q", false, "print logins only")
	return c
}

func quotaText(bytes int64) string {
	if bytes == 0 {
		return "default"
	}
	return size(bytes)
}

func activeText(inactive string) string {
	if inactive == "" {
		return "active"
	}
	return "inactive: " + inactive
}

func accountShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show LOGIN...",
		Short:   "show customers with their domains and usage",
		Example: "  bsmtpd account show jansen",
		Args:    atLeast("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for i, arg := range args {
				login, err := parseLogin(arg)
				if err != nil {
					return err
				}
				info, err := cl.Account(c.Context(), login)
				if err != nil {
					return err
				}
				if a.json() {
					err = a.line(info)
				} else {
					if i > 0 {
						fmt.Fprintln(a.out)
					}
					err = a.showAccount(&info)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) showAccount(info *wire.AccountInfo) error {
	now := time.Now()
	p := a.sheet()
	p.line("login", string(info.Login))
	p.line("state", activeText(info.Inactive))
	p.line("plan", info.Plan)
	p.line("access", info.Access)
	p.line("addresses", strings.Join(info.Addresses, " "))
	p.line("route", info.Route)
	p.line("aliases", strings.Join(info.Aliases, " "))
	p.line("contact", string(info.Contact))
	p.line("locale", info.Locale)
	p.line("filtered", yesNo(info.Filtered))
	p.line("quota", quotaText(info.Quota))
	p.line("holds", fmt.Sprintf("%s, %s of %s", plural(info.Messages, "message"), size(info.UsedBytes), size(info.QuotaBytes)))
	for _, d := range info.Domains {
		text := string(d.Name)
		if d.Route != "" {
			text += " by way of " + d.Route
		}
		p.line("domain", text)
	}
	p.line("created", since(now, info.Created))
	p.line("changed", since(now, info.Changed))
	return p.end()
}

func accountRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove LOGIN...",
		Short:   "remove customers that have no domains and no mail any more",
		Example: "  bsmtpd account remove jansen",
		Args:    atLeast("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, arg := range args {
				login, err := parseLogin(arg)
				if err != nil {
					return err
				}
				if err := cl.RemoveAccount(c.Context(), login); err != nil {
					return err
				}
				if err := a.say(map[string]mail.Login{"removed": login}, "account %s removed", login); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
