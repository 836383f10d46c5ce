package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
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
	line   []byte     // of one row, used again
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
		t.line = t.format(t.line[:0], r)
		if _, err := t.w.Write(t.line); err != nil && t.err == nil {
			t.err = err
		}
	}
	t.rows = t.rows[:0]
}

// format appends a row as a line of text.
func (t *table) format(b []byte, row []string) []byte {
	for i, c := range row {
		if len(row) < len(t.widths) { // a title
			b = append(b, c...)
			continue
		}
		if i > 0 {
			b = append(b, "  "...)
		}
		pad := max(0, t.widths[i]-utf8.RuneCountInString(c))
		if t.right[i] {
			b = append(spaces(b, pad), c...)
		} else {
			b = spaces(append(b, c...), pad)
		}
	}
	return append(bytes.TrimRight(b, " "), '\n')
}

func spaces(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

// harmless keeps a stranger's words from moving the cursor or hiding text.
func harmless(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && ' ' <= s[i] && s[i] <= '~'
	}
	if plain { // mostly
		return s
	}
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
		return strconv.FormatInt(s, 10) + "s"
	case s < 3600:
		return twoUnits(s/60, 'm', s%60, 's')
	case s < 86400:
		return twoUnits(s/3600, 'h', s/60%60, 'm')
	default:
		return twoUnits(s/86400, 'd', s/3600%24, 'h')
	}
}

// twoUnits writes 3h05m; a list of a million messages has a million of them.
func twoUnits(large int64, unit byte, small int64, smallUnit byte) string {
	b := append(strconv.AppendInt(make([]byte, 0, 16), large, 10), unit, byte('0'+small/10), byte('0'+small%10), smallUnit)
	return string(b)
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
