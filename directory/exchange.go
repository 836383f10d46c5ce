package directory

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"bsmtpd/mail"
)

// MaxRecordBytes bounds one record of a file; an account with MaxDomains domains
// fits.
const MaxRecordBytes = 4 << 20

// Format is how accounts stand in a file.
type Format string

// The formats. CSV has a first line with the names of its columns, in any order;
// JSONLines has one object per line. Both carry an account together with its
// domains, under the same names.
const (
	FormatCSV       Format = "csv"
	FormatJSONLines Format = "jsonl"
)

// Record is an account with its domains, one record of a file. The domains' Login
// is the account's.
type Record struct {
	Account Account
	Domains []Domain
}

// LineError says where a file is wrong.
type LineError struct {
	File string
	Line int
	Err  error
	// Fatal: what follows cannot be read either.
	Fatal bool
}

// Error is "FILE:LINE: what is wrong".
func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap gives the cause.
func (e *LineError) Unwrap() error { return e.Err }

// ReadRecords reads accounts with their domains; name stands for the file in
// errors. A wrong record is given as a *LineError, and reading goes on with the
// next unless it is Fatal. What is given passes CheckAccount and CheckDomain.
func ReadRecords(r io.Reader, name string, format Format) iter.Seq2[Record, error] {
	switch format {
	case FormatCSV:
		return readCSV(r, name)
	case FormatJSONLines:
		return readJSONLines(r, name)
	}
	return func(yield func(Record, error) bool) {
		yield(Record{}, &LineError{File: name, Fatal: true, Err: fmt.Errorf("format %q is unknown; use csv or jsonl", format)})
	}
}

// canonical checks a record as a whole.
func canonical(rec Record) (Record, error) {
	a, err := CheckAccount(rec.Account)
	if err != nil {
		return rec, err
	}
	rec.Account = a
	if len(rec.Domains) > MaxDomains {
		return rec, fmt.Errorf("account %s: %d domains are more than %d", a.Login, len(rec.Domains), MaxDomains)
	}
	for i, d := range rec.Domains {
		d.Login = a.Login
		if rec.Domains[i], err = CheckDomain(d); err != nil {
			return rec, err
		}
	}
	return rec, nil
}

// recordJSON is a Record in JSON: the account's fields, and its domains beside
// them.
type recordJSON struct {
	Account
	Quota   quotaJSON       `json:"quota,omitempty"` // instead of Account's
	Domains []domainJSON    `json:"domains,omitempty"`
	Version json.RawMessage `json:"version,omitempty"` // belongs to the row: read and passed over
}

type domainJSON struct {
	Name  mail.Domain `json:"domain"`
	Route Route       `json:"route,omitzero"`
}

// quotaJSON is read from a number of bytes or a text such as "20MiB".
type quotaJSON int64

func (q *quotaJSON) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s mail.Size
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*q = quotaJSON(s)
		return nil
	}
	var n int64
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*q = quotaJSON(n)
	return nil
}

func readJSONLines(r io.Reader, name string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 64<<10), MaxRecordBytes)
		n := 0
		for lines.Scan() {
			n++
			if len(lines.Bytes()) == 0 {
				continue
			}
			rec, err := parseJSON(lines.Bytes())
			if err != nil {
				err = &LineError{File: name, Line: n, Err: err}
			}
			if !yield(rec, err) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("the line is longer than %s", mail.Size(MaxRecordBytes))
			}
			yield(Record{}, &LineError{File: name, Line: n + 1, Err: err, Fatal: true})
		}
	}
}

func parseJSON(line []byte) (Record, error) {
	var j recordJSON
	if err := strictJSON(line, &j); err != nil {
		return Record{}, err
	}
	rec := Record{Account: j.Account}
	rec.Account.Quota = int64(j.Quota)
	for _, d := range j.Domains {
		rec.Domains = append(rec.Domains, Domain{Name: d.Name, Route: d.Route})
	}
	return canonical(rec)
}

// RecordWriter writes a file of accounts. Call Flush at the end.
type RecordWriter struct {
	csv   *csv.Writer
	json  *json.Encoder
	begun bool
}

// NewRecordWriter writes to w in a format that ReadRecords reads.
func NewRecordWriter(w io.Writer, format Format) (*RecordWriter, error) {
	switch format {
	case FormatCSV:
		return &RecordWriter{csv: csv.NewWriter(w)}, nil
	case FormatJSONLines:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return &RecordWriter{json: enc}, nil
	}
	return nil, mail.Fail(mail.Invalid, fmt.Sprintf("format %q is unknown; use csv or jsonl", format))
}

// Write adds a record.
func (w *RecordWriter) Write(rec Record) error {
	if w.json != nil {
		j := recordJSON{Account: rec.Account, Quota: quotaJSON(rec.Account.Quota)}
		for _, d := range rec.Domains {
			j.Domains = append(j.Domains, domainJSON{d.Name, d.Route})
		}
		return w.json.Encode(j)
	}
	if !w.begun {
		w.begun = true
		if err := w.csv.Write(columnNames()); err != nil {
			return err
		}
	}
	return w.csv.Write(csvRow(rec))
}

// Flush writes what is still held back; a CSV file without records gets its
// column names.
func (w *RecordWriter) Flush() error {
	if w.csv == nil {
		return nil
	}
	if !w.begun {
		w.begun = true
		if err := w.csv.Write(columnNames()); err != nil {
			return err
		}
	}
	w.csv.Flush()
	return w.csv.Error()
}
