package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"
)

var header = [7]string{"scenario", "figure", "bsmtpd", "Postfix", "ratio", "to reach", "reached"}

// report prints the table and writes it to results.json and results.md.
func (b *bench) report() error {
	if len(b.figures) == 0 {
		return nil
	}
	fmt.Fprintf(b.out, "\n%s\n%s\n%s\n", b.table(), b.machine, b.remark())
	if err := os.MkdirAll(b.results, 0o755); err != nil {
		return err
	}
	results := struct {
		Machine machine  `json:"machine"`
		Quick   bool     `json:"quick"`
		Seconds float64  `json:"seconds"`
		Figures []figure `json:"figures"`
	}{b.machine, b.quick, time.Since(b.began).Seconds(), b.figures}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.results, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.results, "results.md"), []byte(b.markdown()), 0o644); err != nil {
		return err
	}
	b.say("results.json and results.md are in %s", b.results)
	return nil
}

func (b *bench) remark() string {
	s := fmt.Sprintf("where servers took turns, medians of %d rounds with the least and the most in parentheses; %s in all", size(b, rounds, 1), time.Since(b.began).Round(time.Second))
	if b.quick {
		s += "; -quick: THESE FIGURES MEASURE NOTHING"
	}
	return s
}

// table is for a terminal.
func (b *bench) table() string {
	rows := [][7]string{header}
	for _, f := range b.figures {
		rows = append(rows, f.cells())
	}
	var width [7]int
	for _, r := range rows {
		for i, c := range r {
			if !strings.HasPrefix(c, "skipped") && !strings.HasPrefix(c, "failed") {
				width[i] = max(width[i], utf8.RuneCountInString(c))
			}
		}
	}
	var out strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString(c + strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(c))+2))
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return out.String()
}

// markdown is for doc/benchmarks.md.
func (b *bench) markdown() string {
	var out strings.Builder
	row := func(c [7]string) { out.WriteString("| " + strings.Join(c[:], " | ") + " |\n") }
	row(header)
	out.WriteString("|" + strings.Repeat(" --- |", len(header)) + "\n")
	for _, f := range b.figures {
		c := f.cells()
		if f.Note != "" {
			c[1] += " (" + f.Note + ")"
		}
		row(c)
	}
	fmt.Fprintf(&out, "\nSeen: %s. %s.\n", b.machine, b.remark())
	return out.String()
}
