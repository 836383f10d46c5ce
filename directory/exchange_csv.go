package directory

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bsmtpd/mail"
)

// column is one column of the CSV form. Lists stand with spaces between their
// items; a domain with a route of its own is "domain=route".
type column struct {
	name string
	get  func(*Record) string
	set  func(*Record, string) error
}

// columns are the names that files carry for ever, in the order of writing.
func columns() []column {
	return []column{
		{"login", func(r *Record) string { return string(r.Account.Login) },
			func(r *Record, s string) error { r.Account.Login = mail.Login(s); return nil }},
		{"addresses", getAddresses, setAddresses},
		{"plan", func(r *Record) string { return string(r.Account.Plan) },
			func(r *Record, s string) error { r.Account.Plan = Plan(s); return nil }},
		{"quota", func(r *Record) string { return strconv.FormatInt(r.Account.Quota, 10) }, setQuota},
		{"contact", func(r *Record) string { return string(r.Account.Contact) },
			func(r *Record, s string) error { r.Account.Contact = mail.Address(s); return nil }},
		{"locale", func(r *Record) string { return string(r.Account.Locale) },
			func(r *Record, s string) error { r.Account.Locale = Locale(s); return nil }},
		{"access", func(r *Record) string { return string(r.Account.Access) },
			func(r *Record, s string) error { r.Account.Access = Access(s); return nil }},
		{"inactive", func(r *Record) string { return r.Account.Inactive },
			func(r *Record, s string) error { r.Account.Inactive = s; return nil }},
		{"route", func(r *Record) string { return r.Account.Route.String() }, setRoute},
		{"aliases", func(r *Record) string { return strings.Join(r.Account.Aliases, " ") },
			func(r *Record, s string) error { r.Account.Aliases = words(s); return nil }},
		{"filtered", func(r *Record) string { return strconv.FormatBool(r.Account.Filtered) }, setFiltered},
		{"domains", getDomains, setDomains},
	}
}

func columnNames() []string {
	var names []string
	for _, c := range columns() {
		names = append(names, c.name)
	}
	return names
}

// words splits at spaces and tabs only: other spaces may stand in a UTF-8 alias.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' })
}

func getAddresses(r *Record) string {
	var list []string
	for _, a := range r.Account.Addresses {
		list = append(list, a.String())
	}
	return strings.Join(list, " ")
}

func setAddresses(r *Record, s string) error {
	for _, w := range words(s) {
		a, err := netip.ParseAddr(w)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", w)
		}
		r.Account.Addresses = append(r.Account.Addresses, a)
	}
	return nil
}

func setQuota(r *Record, s string) error {
	if s == "" {
		return nil
	}
	n, err := mail.ParseSize(s)
	r.Account.Quota = int64(n)
	return err
}

func setRoute(r *Record, s string) (err error) {
	r.Account.Route, err = ParseRoute(s)
	return err
}

func setFiltered(r *Record, s string) error {
	switch s {
	case "", "false", "no", "0":
		return nil
	case "true", "yes", "1":
		r.Account.Filtered = true
		return nil
	}
	return fmt.Errorf("%q is neither true nor false", s)
}

func getDomains(r *Record) string {
	var list []string
	for _, d := range r.Domains {
		s := string(d.Name)
		if d.Route != (Route{}) {
			s += "=" + d.Route.String()
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func setDomains(r *Record, s string) error {
	for _, w := range words(s) {
		name, text, _ := strings.Cut(w, "=")
		route, err := ParseRoute(text)
		if err != nil {
			return fmt.Errorf("domain %s: %w", name, err)
		}
		r.Domains = append(r.Domains, Domain{Name: mail.Domain(name), Route: route})
	}
	return nil
}

func csvRow(rec Record) []string {
	var out []string
	for _, c := range columns() {
		out = append(out, c.get(&rec))
	}
	return out
}

func readCSV(r io.Reader, name string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		budget := &budgetReader{r: r}
		in := csv.NewReader(budget)
		in.FieldsPerRecord = -1 // told with our own words
		in.TrimLeadingSpace = true
		in.ReuseRecord = true
		budget.refill()
		head, err := in.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		var cols []column
		if err == nil {
			cols, err = readHead(head)
		}
		if err != nil {
			bad := csvError(name, in, err)
			bad.Line, bad.Fatal = 1, true
			yield(Record{}, bad)
			return
		}
		for {
			budget.refill()
			fields, err := in.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				bad := csvError(name, in, err)
				if !yield(Record{}, bad) || bad.Fatal {
					return
				}
				continue
			}
			line, _ := in.FieldPos(0)
			rec, err := parseRow(cols, fields)
			if err != nil {
				err = &LineError{File: name, Line: line, Err: err}
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

func readHead(head []string) ([]column, error) {
	known := columns()
	var out []column
	seen := map[string]bool{}
	for i, h := range head {
		h = strings.ToLower(strings.TrimSpace(h))
		if i == 0 {
			h = strings.TrimPrefix(h, "\ufeff") // a spreadsheet's byte order mark
		}
		at := slices.IndexFunc(known, func(c column) bool { return c.name == h })
		if at < 0 {
			return nil, fmt.Errorf("column %q is unknown; the columns are %s", h, strings.Join(columnNames(), ","))
		}
		if seen[h] {
			return nil, fmt.Errorf("column %q stands twice", h)
		}
		seen[h] = true
		out = append(out, known[at])
	}
	if !seen["login"] {
		return nil, errors.New("the column login is missing")
	}
	return out, nil
}

func parseRow(cols []column, fields []string) (Record, error) {
	if len(fields) != len(cols) {
		return Record{}, fmt.Errorf("the record has %d fields, and the first line names %d columns", len(fields), len(cols))
	}
	var rec Record
	for i, c := range cols {
		if err := c.set(&rec, strings.TrimSpace(strings.Clone(fields[i]))); err != nil {
			return Record{}, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return canonical(rec)
}

// csvError places an error. After a misplaced quote the next line can be read,
// after anything else (the disk, the network, the budget) nothing can.
func csvError(name string, in *csv.Reader, err error) *LineError {
	var p *csv.ParseError
	if errors.As(err, &p) && (errors.Is(p.Err, csv.ErrQuote) || errors.Is(p.Err, csv.ErrBareQuote)) {
		return &LineError{File: name, Line: p.Line, Err: p.Err}
	}
	if p != nil {
		return &LineError{File: name, Line: p.Line, Err: p.Err, Fatal: true}
	}
	return &LineError{File: name, Line: 0, Err: err, Fatal: true}
}

// budgetReader bounds what one record may take: csv.Reader itself would gather a
// field whose quote never closes until memory ends.
type budgetReader struct {
	r    io.Reader
	left int
}

func (b *budgetReader) refill() { b.left = MaxRecordBytes }

func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the record is longer than %s; is a quote not closed?", mail.Size(MaxRecordBytes))
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// strictJSON reads exactly one value, all of whose fields must be known.
func strictJSON(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}
