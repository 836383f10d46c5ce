package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot is the tree of commands: one constructor per noun, each in the file of
// its name.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "bsmtpd",
		Short: "keep mail safe and push it the moment the customer is online",
		Long: `bsmtpd takes mail in for customers who are not always online, keeps it, and
pushes it to their own mail server the moment they log in.

"bsmtpd serve" is the server. The other commands speak to the running server over
DATA/admin.sock, or over the network with --server and a token.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing matched.`,
		Example: `  bsmtpd serve
  bsmtpd account add jansen --address 192.0.2.10 --route mail.jansen.example
  bsmtpd domain add jansen.example --account jansen
  bsmtpd queue summary
  bsmtpd account explain jansen`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "" && a.output != "table" && a.output != "json" {
				return usagef("-o %s: use table or json", a.output)
			}
			a.started = true
			return nil
		},
	}
	root.Version = version()
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddCommand(a.commands()...)
	refuseStrangers(root)
	return root
}

// commands is what an operator can say.
func (a *app) commands() []*cobra.Command {
	asking := []*cobra.Command{
		accountCommand(a),
		auditCommand(a),
		deliveryCommand(a),
		domainCommand(a),
		loginCommand(a),
		mailboxCommand(a),
		queueCommand(a),
		statusCommand(a),
	}
	for _, c := range asking {
		a.dataFlag(c)
		a.serverFlags(c)
		a.outputFlag(c)
	}
	serve, check, spool := serveCommand(a), checkConfigCommand(a), spoolCommand(a)
	a.dataFlag(serve)
	for _, c := range []*cobra.Command{check, spool} {
		a.dataFlag(c)
		a.outputFlag(c)
	}
	return append(asking, serve, check, spool, demoCommand(a))
}

func (a *app) dataFlag(c *cobra.Command) {
	c.PersistentFlags().StringVar(&a.data, "data", "",
		"data directory of the server on this machine (default $"+envData+" or $"+envDataDir+", else ./data)")
}

// serverFlags are for commands that ask a running server.
func (a *app) serverFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.server, "server", "", "URL of a server's API, instead of its data directory (default $"+envServer+")")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the token for --server (default: the token in $"+envToken+")")
	f.StringVar(&a.caFile, "ca", "", "file with the certificates in PEM to trust for an https --server (default: the system's)")
	f.BoolVar(&a.plainToken, "plain-token", false, "the token may go over plain http to another machine, where others can read it")
}

func (a *app) outputFlag(c *cobra.Command) {
	c.PersistentFlags().StringVarP(&a.output, "output", "o", "", "table, or json for JSON lines")
}

// group is a command that only has others below it.
func group(use, short, long string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long}
	c.AddCommand(below...)
	return c
}

// refuseStrangers makes a word that is no command an error everywhere, where
// cobra would show the help and report success.
func refuseStrangers(c *cobra.Command) {
	for _, sub := range c.Commands() {
		refuseStrangers(sub)
	}
	if c.Runnable() || !c.HasSubCommands() {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			c.SetOut(c.ErrOrStderr())
			c.Help()
			return usagef("%ssay what to do", place(c))
		}
		text := fmt.Sprintf("%sthere is no command %q", place(c), args[0])
		c.SuggestionsMinimumDistance = 2
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("%s; did you mean %q?", text, near[0])
		}
		return usagef("%s; see \"%s --help\"", text, c.CommandPath())
	}
}

// place is the command that an error is about; the program's own name is written
// before every error.
func place(c *cobra.Command) string {
	if !c.HasParent() {
		return ""
	}
	return c.CommandPath() + ": "
}

// end writes what is left, says what went wrong and what to do about it, and
// gives the exit code.
func (a *app) end(err error) int {
	if ferr := a.out.Flush(); err == nil && ferr != nil && !quiet(ferr) {
		err = fmt.Errorf("write the output: %w", ferr)
	}
	if err != nil && !errors.Is(err, errNothing) {
		for line := range strings.SplitSeq(err.Error()+a.hint(err), "\n") {
			if !strings.HasPrefix(line, "bsmtpd ") { // a mistake in the use of a command begins with its name
				line = "bsmtpd: " + line
			}
			fmt.Fprintln(a.err, harmless(line))
		}
	}
	return a.exitCode(err)
}

// exactly checks the number of arguments; names says what they are.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s: %s is missing; see \"%s --help\"", c.CommandPath(), names[len(args)], c.CommandPath())
		}
		if len(args) > len(names) {
			return usagef("%s: %q is one argument too many; see \"%s --help\"", c.CommandPath(), args[len(names)], c.CommandPath())
		}
		return nil
	}
}

// atLeast wants one or more arguments of a kind.
func atLeast(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s: %s is missing; see \"%s --help\"", c.CommandPath(), name, c.CommandPath())
		}
		return nil
	}
}

// atMost wants the named arguments or fewer.
func atMost(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usagef("%s: %q is one argument too many; see \"%s --help\"", c.CommandPath(), args[len(names)], c.CommandPath())
		}
		return nil
	}
}
