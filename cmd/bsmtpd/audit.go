package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/client"
)

func auditCommand(a *app) *cobra.Command {
	return group("audit", "who changed what, and when", "", auditList(a))
}

func auditList(a *app) *cobra.Command {
	var object, by, action, younger string
	var limit int
	var values bool
	c := &cobra.Command{
		Use:   "list",
		Short: "list changes, the newest first",
		Example: `  bsmtpd audit list --object account/jansen --values
  bsmtpd audit list --younger 1d -o json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			var after time.Time
			if younger != "" {
				d, err := parseAge(younger)
				if err != nil {
					return usagef("--younger: %v", err)
				}
				after = time.Now().Add(-d)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			t := newTable(a.out, ">NUMBER", "AT", "BY", "ACTION", "OBJECT", "REASON")
			n := 0
			for r, err := range cl.Audit(c.Context(), client.AuditFilter{Object: object, By: by, Action: action}, client.Page{}) {
				if err != nil {
					return err
				}
				if r.At.Before(after) {
					break // the newest come first
				}
				if n++; a.json() {
					if err := a.line(r); err != nil {
						return err
					}
				} else {
					t.row(fmt.Sprint(r.Seq), moment(r.At), r.By, r.Action, r.Object, r.Reason)
					if values {
						t.note("before", r.Before)
						t.note("after", r.After)
					}
				}
				if n == limit {
					break
				}
			}
			if n == 0 && !a.json() {
				a.note("nothing was changed")
			}
			return t.end()
		},
	}
	f := c.Flags()
	f.StringVar(&object, "object", "", "only changes of this: account/LOGIN, domain/NAME, a queue")
	f.StringVar(&by, "by", "", "only changes by this person or program")
	f.StringVar(&action, "action", "", "only actions that begin so: queue, \"account set\"")
	f.StringVar(&younger, "younger", "", "only changes of so long: 1h, 7d")
	f.IntVar(&limit, "limit", 100, "show only so many (0: all)")
	f.BoolVar(&values, "values", false, "show what was there before and after")
	return c
}
