package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func statusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show how the server is",
		Long:  "Show how the server is. Exit code 1: it is not ready.",
		Example: `  bsmtpd status
  bsmtpd status -o json | jq .messages`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			s, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if a.json() {
				err = a.line(s)
			} else {
				now := time.Now()
				p := a.sheet()
				p.line("node", s.Node)
				p.line("version", s.Version)
				p.line("started", since(now, s.Started))
				p.line("leader", s.Leader)
				p.line("ready", yesNo(s.Ready))
				for _, r := range s.Reasons {
					p.line("  because", r)
				}
				for _, w := range s.Warnings {
					p.line("WARNING", w)
				}
				p.line("waiting", fmt.Sprintf("%s in %s, %s", plural(s.Messages, "message"), plural(s.Queues, "queue"), size(s.Bytes)))
				p.line("at work", fmt.Sprint(s.Active))
				p.line("failing", fmt.Sprint(s.Failing))
				p.line("held", fmt.Sprint(s.Held))
				p.line("last sweep", since(now, s.Sweep))
				err = p.end()
			}
			if err == nil && !s.Ready {
				return fmt.Errorf("the server is not ready: %s", strings.Join(s.Reasons, "; "))
			}
			return err
		},
	}
}
