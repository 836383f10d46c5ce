package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"bsmtpd/mail"
)

// tableLookahead rows decide the widths of the columns; later rows stream, so
// that a table of a million rows needs no memory. A cell that is wider than its
// column pushes the rest of its row aside.
const tableLookahead = 500

// table writes aligned columns for people.
type table struct {
	w      io.Writer
	right  []bool // one for each column
	widths []int
	rows   [][]string // not written yet
	fixed  bool
	count  int
	err    error
}

// newTable begins a table. A column whose name begins with ">" is for numbers and
// aligned to the right. The header is written before the first row only.
func newTable(w io.Writer, columns ...string) *table {
	t := &table{w: w, right: make([]bool, len(columns)), widths: make([]int, len(columns))}
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i], t.right[i] = strings.CutPrefix(c, ">")
	}
	t.rows = append(t.rows, head)
	return t
}

// row adds a row. Cells are made harmless: they carry words of strangers.
func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = harmless(cells[i])
	}
	t.count++
	t.rows = append(t.rows, cells)
	if t.fixed || len(t.rows) > tableLookahead {
		t.write()
	}
}

// note adds a line of its own below the last row; nothing where value is empty.
func (t *table) note(name, value string) {
	if value == "" {
		return
	}
	t.write()
	if _, err := fmt.Fprintf(t.w, "    %s: %s\n", name, harmless(value)); err != nil && t.err == nil {
		t.err = err
	}
}

// title adds a line of its own that has no part in the columns.
func (t *table) title(text string) {
	t.rows = append(t.rows, []string{harmless(text)})
}

// end writes what is left; a table without rows writes nothing at all.
func (t *table) end() error {
	if t.count > 0 {
		t.write()
	}
	return t.err
}

func (t *table) write() {
	if !t.fixed {
		for _, r := range t.rows {
			if len(r) < len(t.widths) {
				continue // a title
			}
			for i, c := range r {
				t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
			}
		}
		t.fixed = true
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, c := range r {
			if len(r) < len(t.widths) {
				b.WriteString(c) // a title
				continue
			}
			pad := strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(c)))
			if i > 0 {
				b.WriteString("  ")
			}
			if t.right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		if _, err := fmt.Fprintln(t.w, strings.TrimRight(b.String(), " ")); err != nil && t.err == nil {
			t.err = err
		}
	}
	t.rows = t.rows[:0]
}

// harmless keeps a stranger's words from moving the cursor or hiding text.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

func size(bytes int64) string { return mail.Size(bytes).String() }

// age is how long ago t was: "3h12m". Empty for the zero time.
func age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t))
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	switch s := int64(d / time.Second); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// in is how far off t is: "in 4m10s", "now" for what is due, empty for never.
func in(now, t time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case !t.After(now):
		return "now"
	}
	return "in " + span(t.Sub(now))
}

// moment is t on the clock of whoever looks.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func unixTime(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
