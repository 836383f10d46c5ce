package main

import (
	"fmt"
	"io"
	"time"

	"bsmtpd/api/wire"
)

// sheet writes names and values of one thing below each other. What has no value
// is left out.
type sheet struct {
	w     io.Writer
	lines [][2]string
	width int
}

func (a *app) sheet() *sheet { return &sheet{w: a.out} }

func (s *sheet) line(name, value string) {
	if value == "" {
		return
	}
	s.lines = append(s.lines, [2]string{name, harmless(value)})
	s.width = max(s.width, len(name))
}

func (s *sheet) end() error {
	for _, l := range s.lines {
		if _, err := fmt.Fprintf(s.w, "%-*s  %s\n", s.width+1, l[0]+":", l[1]); err != nil {
			return err
		}
	}
	return nil
}

// since is a moment and how long ago it was.
func since(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", moment(t), span(now.Sub(t)))
}

// until is a moment to come and how far off it is.
func until(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", moment(t), in(now, t))
}

func holdText(now time.Time, h *wire.Hold) string {
	if h == nil {
		return ""
	}
	text := "by " + h.By + " at " + moment(h.At)
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	if !h.Until.IsZero() {
		text += ", until " + until(now, h.Until)
	}
	return text
}

func bracket(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func nonzero(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
