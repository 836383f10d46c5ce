package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/config"
	"bsmtpd/node"
)

func spoolCommand(a *app) *cobra.Command {
	return group("spool", "look into the data directory of a stopped server",
		`Look into the data directory of a stopped server.`, spoolVerifyCommand(a))
}

// refusedError ends a verify of a directory that a server refuses to start on.
type refusedError struct{ dir string }

func (e *refusedError) Error() string { return "a server will refuse to start on " + e.dir }

func spoolVerifyCommand(a *app) *cobra.Command {
	var file string
	var sets []string
	c := &cobra.Command{
		Use:   "verify",
		Short: "check a stopped server's data directory: log, state database, every row",
		Long: `Read the whole data directory of a stopped server and say of each part whether it
is sound (OK), what is wrong with it (BAD) or to be looked at (WARN), and what to do.
Nothing is changed. It takes as long as reading the directory once, and some time
more for many small messages.

The data directory and the node's name are those that "bsmtpd serve" would use.

Exit codes: 0 all is sound; 1 something is wrong, but a server starts, or it could
not be checked; 2 a server will refuse to start.`,
		Example: `  bsmtpd spool verify --data /var/lib/bsmtpd
  bsmtpd spool verify --config /etc/bsmtpd/bsmtpd.yaml -o json`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			source, err := a.source(file, sets)
			if err != nil {
				return err
			}
			conf, err := config.Load(source)
			if err != nil {
				return err
			}
			report, err := node.Verify(a.host, conf.Node, a.progress())
			a.wipe()
			if err != nil {
				return err
			}
			return a.verified(report)
		},
	}
	c.Flags().StringVar(&file, "config", a.getenv("BSMTPD_CONFIG"), "configuration file (default $BSMTPD_CONFIG, else none)")
	c.Flags().StringArrayVar(&sets, "set", nil, "one setting, key=value; wins over file and environment")
	return c
}

// progress tells a person at a terminal how far a long look is; nil: there is none.
func (a *app) progress() func(string, int64) {
	if !isTerminal(a.err) {
		return nil
	}
	var last time.Time
	return func(what string, done int64) {
		if done > 0 && time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		fmt.Fprintf(a.err, "\r\x1b[Kchecking %s", what)
		if done > 0 {
			fmt.Fprintf(a.err, ": %d", done)
		}
	}
}

// wipe removes the line of progress.
func (a *app) wipe() {
	if isTerminal(a.err) {
		fmt.Fprint(a.err, "\r\x1b[K")
	}
}

// verified writes a report, and gives the error that its exit code says.
func (a *app) verified(r *node.Report) error {
	if a.json() {
		if err := a.line(r); err != nil {
			return err
		}
	} else {
		t := newTable(a.out, "CHECK", "RESULT", "FOUND")
		for _, c := range r.Checks {
			result := "OK"
			switch {
			case !c.Sound:
				result = "BAD"
			case c.Warning:
				result = "WARN"
			}
			t.row(c.Name, result, c.Found)
			for _, f := range c.Faults {
				t.note("fault", f)
			}
			if more := c.Count - int64(len(c.Faults)); more > 0 {
				t.note("fault", fmt.Sprintf("and %d more", more))
			}
			t.note("do", c.Do)
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	switch {
	case r.Refuses():
		return &refusedError{r.Dir}
	case !r.Sound():
		return fmt.Errorf("%s is not sound, but a server starts on it", r.Dir)
	}
	if a.json() {
		return nil
	}
	_, err := fmt.Fprintf(a.out, "%s is sound: safe to start\n", r.Dir)
	return err
}
