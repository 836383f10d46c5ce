package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// meter shows on a person's screen how far something is. Where standard error is
// no screen it shows nothing.
type meter struct {
	w     io.Writer // nil: nobody looks
	what  string
	began time.Time
	last  time.Time
	width int // of what stands on the line now
}

const (
	meterEvery = 100 * time.Millisecond
	barWidth   = 30
)

// meter begins one; what ends the sentence "1200 of 5000 ...".
func (a *app) meter(what string) *meter {
	m := &meter{what: what, began: time.Now()}
	if isTerminal(a.err) {
		m.w = a.err
	}
	return m
}

// show draws the line; total 0: it is not known.
func (m *meter) show(done, total int64) {
	text := fmt.Sprintf("%d %s", done, m.what)
	if total > 0 {
		text = fmt.Sprintf("%s %d of %d %s", bar(done, total), done, total, m.what)
	}
	m.draw(done, text)
}

// part draws the line where how far it is, part of whole, is counted in another
// unit than what is done.
func (m *meter) part(done, part, whole int64) {
	text := fmt.Sprintf("%d %s", done, m.what)
	if whole > 0 {
		text = bar(part, whole) + " " + text
	}
	m.draw(done, text)
}

func bar(done, total int64) string {
	full := int(min(done, total) * barWidth / total)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}

func (m *meter) draw(done int64, text string) {
	now := time.Now()
	if m.w == nil || now.Sub(m.last) < meterEvery {
		return
	}
	m.last = now
	if s := now.Sub(m.began).Seconds(); s > 1 {
		text += fmt.Sprintf(", %.0f/s", float64(done)/s)
	}
	fmt.Fprintf(m.w, "\r%-*s", m.width, text)
	m.width = max(m.width, len(text))
}

// end wipes the line.
func (m *meter) end() {
	if m.w != nil && m.width > 0 {
		fmt.Fprintf(m.w, "\r%*s\r", m.width, "")
		m.width = 0
	}
}
