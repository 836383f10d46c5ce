package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
)

func accountExplain(a *app) *cobra.Command {
	var quick bool
	c := &cobra.Command{
		Use:   "explain LOGIN",
		Short: "say why a customer's mail is not arriving",
		Long: `Answer on one screen why a customer's mail is not arriving: is the account
active, does DNS point here, what did the customer's server say, does port 25
answer, was a login debounced, is there a double login, is the quota full, how old
is the queue. The exit code is 0 also when the answer is bad.`,
		Example: `  bsmtpd account explain jansen
  bsmtpd account explain jansen -o json | jq -r .verdict`,
		Args: exactly("LOGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			login, err := parseLogin(args[0])
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			e, err := cl.Explain(c.Context(), login, !quick, !quick)
			if err != nil {
				return err
			}
			if a.json() {
				return a.line(e)
			}
			return a.showExplain(&e)
		},
	}
	c.Flags().BoolVar(&quick, "quick", false, "ask neither DNS nor the customer's server, only what is known here")
	return c
}

// marks are what a verdict looks like at the beginning of a line.
var marks = map[wire.Verdict]string{wire.OK: "ok", wire.Warn: "WARN", wire.Bad: "BAD", wire.Skipped: "-"}

// badness is the order on the screen: what is wrong stands first.
var badness = map[wire.Verdict]int{wire.Bad: 0, wire.Warn: 1, wire.OK: 2, wire.Skipped: 3}

// showExplain says each thing once: the checks tell what the queue's and the
// presence's own numbers would tell again. Those are in -o json.
func (a *app) showExplain(e *wire.Explain) error {
	checks := slices.Clone(e.Checks)
	slices.SortStableFunc(checks, func(x, y wire.Check) int { return badness[x.Verdict] - badness[y.Verdict] })
	fmt.Fprintf(a.out, "%s: %s\n\n", e.Login, headline(e, checks))
	a.showChecks(checks)
	for _, d := range e.Domains {
		if len(e.Domains) > 1 && d.Verdict != wire.OK && d.Verdict != wire.Skipped {
			fmt.Fprintf(a.out, "\ndomain %s, pushed to %s\n", d.Domain, harmless(d.Route))
			a.showChecks(d.Checks)
		}
	}
	if p := e.Presence; p != nil && len(p.Sessions) > 0 {
		fmt.Fprintln(a.out)
		s := a.sheet()
		for _, line := range p.Sessions {
			s.line("session", sessionText(line))
		}
		return s.end()
	}
	return nil
}

// headline names the checks that are not well.
func headline(e *wire.Explain, checks []wire.Check) string {
	var bad, warn []string
	for _, c := range checks {
		switch c.Verdict {
		case wire.Bad:
			bad = append(bad, c.Name)
		case wire.Warn:
			warn = append(warn, c.Name)
		}
	}
	switch {
	case len(bad) > 0 && len(warn) > 0:
		return "wrong: " + strings.Join(bad, ", ") + "; worth a look: " + strings.Join(warn, ", ")
	case len(bad) > 0:
		return "wrong: " + strings.Join(bad, ", ")
	case len(warn) > 0:
		return "worth a look: " + strings.Join(warn, ", ")
	}
	return harmless(e.Summary)
}

// showChecks writes one line for each question, and what to do below it.
func (a *app) showChecks(checks []wire.Check) {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		fmt.Fprintf(a.out, "  %-4s  %-*s  %s\n", marks[c.Verdict], width, c.Name, harmless(c.Found))
		if c.Advice != "" {
			fmt.Fprintf(a.out, "  %4s  %*s  -> %s\n", "", width, "", harmless(c.Advice))
		}
	}
}

func sessionText(s wire.Session) string {
	text := s.Address
	if s.NAS != "" {
		text += " by way of " + s.NAS
	}
	if s.Session != "" {
		text += ", session " + s.Session
	}
	text += ", since " + moment(s.Since)
	switch {
	case s.Missed:
		text += ", online until a Stop was missed, last heard of " + moment(s.Last)
	case !s.Online:
		text += ", ended " + moment(s.Stopped)
	}
	return text
}

// doubleText explains a wire.Presence.Double.
func doubleText(double string) string {
	switch double {
	case "session":
		return "another session of the login is online"
	case "address":
		return "the address is not a fixed address of the account"
	}
	return double
}
