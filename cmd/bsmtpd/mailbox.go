package main

import (
	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func mailboxCommand(a *app) *cobra.Command {
	return group("mailbox", "customers' own mail, which is collected and never pushed", "",
		mailboxList(a), mailboxShow(a), mailboxRemove(a))
}

func mailboxList(a *app) *cobra.Command {
	var ids bool
	c := &cobra.Command{
		Use:   "list [LOGIN]",
		Short: "list the messages in one mailbox, or in all",
		Example: `  bsmtpd mailbox list jansen
  bsmtpd mailbox list -o json`,
		Args: atMost("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			f := filterFlags{state: wire.StateMailbox}
			if len(args) == 1 {
				f.account = args[0]
			}
			n, err := a.listMessages(c.Context(), &f, ids, 0)
			if err == nil && n == 0 && !a.json() && !ids {
				a.note("there is no mail")
			}
			return err
		},
	}
	c.Flags().BoolVarP(&ids, "quiet", "q", false, "print queue IDs only")
	return c
}

func mailboxShow(a *app) *cobra.Command {
	var headers bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "print a message as it is stored",
		Long: `Print a message, in a mailbox or in a queue, as it is stored. Only an admin token
may do this. On a screen its control characters are made harmless.`,
		Example: `  bsmtpd mailbox show 000000000S002
  bsmtpd mailbox show --headers 000000000S002
  bsmtpd mailbox show 000000000S002 > message.eml`,
		Args: exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := mail.ParseID(args[0])
			if err != nil {
				return usagef("%v", err)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.Body(c.Context(), a.safely(), id.String(), headers)
		},
	}
	c.Flags().BoolVar(&headers, "headers", false, "only the headers")
	return c
}

func mailboxRemove(a *app) *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:     "remove ID...",
		Short:   "remove messages; \"bsmtpd queue requeue\" can bring them back for 72 hours",
		Example: "  bsmtpd mailbox remove 000000000S002",
		Args:    atLeast("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.actOnArgs(c, removeVerb, wire.Action{Action: removeVerb.name, Reason: why}, args)
		},
	}
	c.Flags().StringVar(&why, "reason", "", "for the audit")
	return c
}
