package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
)

// formatOf chooses between csv and jsonl: what was said, else the file's name.
func formatOf(said, file string) (string, error) {
	switch {
	case said == "csv" || said == "jsonl":
		return said, nil
	case said != "":
		return "", usagef("--format %s: use csv or jsonl", said)
	case strings.HasSuffix(file, ".jsonl"), strings.HasSuffix(file, ".ndjson"), strings.HasSuffix(file, ".json"):
		return "jsonl", nil
	case strings.HasSuffix(file, ".csv"):
		return "csv", nil
	}
	return "", usagef("say what is in %s: --format csv or --format jsonl", file)
}

func accountImport(a *app) *cobra.Command {
	var format string
	var dryRun bool
	c := &cobra.Command{
		Use:   "import FILE|-",
		Short: "add and change many customers from a file",
		Long: `Read accounts with their domains from a file, or from standard input for "-", and
add or replace them. A record that is wrong is reported with its line and the
others are done; the exit code is then 1. "bsmtpd account export" writes the same
forms:

  csv    a first line with the names of the columns: login, addresses, plan, quota,
         contact, locale, access, inactive, route, aliases, filtered, domains;
         lists stand with spaces between their items
  jsonl  one object per line, with the names of "bsmtpd account show -o json"`,
		Example: `  bsmtpd account import customers.csv
  zcat customers.jsonl.gz | bsmtpd account import - --format jsonl`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := formatOf(format, args[0])
			if err != nil {
				return err
			}
			in, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			name := args[0]
			if name == "-" {
				name = "stdin"
			}
			return a.importAccounts(c, kind, name, in, dryRun)
		},
	}
	c.Flags().StringVar(&format, "format", "", "csv or jsonl (default: by the file's name)")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "read and check the file, write nothing")
	return c
}

// counted counts the bytes that were read.
type counted struct {
	r io.Reader
	n atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (a *app) importAccounts(c *cobra.Command, format, name string, in io.Reader, dryRun bool) error {
	total := a.fileSize(name)
	cl, err := a.client()
	if err != nil {
		return err
	}
	body := &counted{r: in}
	meter := a.meter("accounts")
	defer meter.end()
	var last wire.Progress
	_, err = cl.ImportAccounts(c.Context(), body, format, name, dryRun, func(p wire.Progress) {
		for _, text := range p.Errors {
			meter.end()
			a.note("bsmtpd: %s", harmless(text))
		}
		last = p
		meter.part(p.Done, body.n.Load(), total)
	})
	meter.end()
	switch {
	case err != nil && last.Done > 0:
		return fmt.Errorf("%s: after %s: %w; run the import again, it changes nothing twice", name, plural(last.Done, "account"), err)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	last.Errors = nil
	if err := a.say(last, "%s: %d added, %d changed, %d wrong", plural(last.Seen, "account"), last.Created, last.Done-last.Created, last.Failed); err != nil {
		return err
	}
	if last.Failed > 0 {
		return fmt.Errorf("%s: %s not imported", name, plural(last.Failed, "record"))
	}
	return nil
}

// fileSize is the size of a file, 0 where it is not known, as of standard input.
func (a *app) fileSize(name string) int64 {
	i, err := a.host.FS.Stat(name)
	if err != nil {
		return 0
	}
	return i.Size()
}

func accountExport(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "export [csv|jsonl]",
		Short: "write all customers with their domains to standard output",
		Example: `  bsmtpd account export csv > customers.csv
  bsmtpd account export jsonl | gzip > customers.jsonl.gz`,
		Args: atMost("csv|jsonl"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				format = args[0]
			}
			if format != "csv" && format != "jsonl" {
				return usagef("format %q: use csv or jsonl", format)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.ExportAccounts(c.Context(), a.out, format)
		},
	}
	c.Flags().StringVar(&format, "format", "csv", "csv or jsonl")
	return c
}
