package main

import (
	"fmt"
	"math"
	"strings"
)

// maxFailed bounds the text of a failure in a table; the log above it has all.
const maxFailed = 200

// figure is one row of the table.
type figure struct {
	Scenario string    `json:"scenario"`
	Name     string    `json:"figure"`
	Unit     string    `json:"unit"`
	Bsmtpd   []float64 `json:"bsmtpd,omitempty"` // one per round
	Postfix  []float64 `json:"postfix,omitempty"`
	Target   target    `json:"target,omitzero"`
	Note     string    `json:"note,omitempty"`
	Skipped  string    `json:"skipped,omitempty"` // why
	Failed   string    `json:"failed,omitempty"`
}

// target is what is to be reached. Values of zero ask nothing.
type target struct {
	AtLeast      float64 `json:"at_least,omitempty"`
	AtMost       float64 `json:"at_most,omitempty"`
	TimesPostfix float64 `json:"times_postfix,omitempty"` // at least so many times Postfix's
	PartPostfix  float64 `json:"part_postfix,omitempty"`  // at most this part of Postfix's
}

func (t target) String() string {
	switch {
	case t.AtLeast != 0:
		return "≥ " + number(t.AtLeast)
	case t.AtMost != 0:
		return "≤ " + number(t.AtMost)
	case t.TimesPostfix != 0:
		return "≥ " + number(t.TimesPostfix) + " × Postfix"
	case t.PartPostfix != 0:
		return fmt.Sprintf("≤ 1/%s of Postfix", number(1/t.PartPostfix))
	}
	return ""
}

// verdict is "yes", "no" or, where nothing can be said, empty.
func (f figure) verdict() string {
	t, seen, ratio := f.Target, median(f.Bsmtpd), f.ratio()
	var ok bool
	switch {
	case len(f.Bsmtpd) == 0:
		return ""
	case t.AtLeast != 0:
		ok = seen >= t.AtLeast
	case t.AtMost != 0:
		ok = seen <= t.AtMost
	case ratio == 0:
		return ""
	case t.TimesPostfix != 0:
		ok = ratio >= t.TimesPostfix
	case t.PartPostfix != 0:
		ok = ratio <= t.PartPostfix
	default:
		return ""
	}
	if ok {
		return "yes"
	}
	return "no"
}

// ratio is bsmtpd's value in Postfix's; 0 if it is not known.
func (f figure) ratio() float64 {
	p := median(f.Postfix)
	if p == 0 || len(f.Bsmtpd) == 0 {
		return 0
	}
	return median(f.Bsmtpd) / p
}

// add a round's value of a server.
func (f *figure) add(server string, value float64) {
	if server == "postfix" {
		f.Postfix = append(f.Postfix, value)
	} else {
		f.Bsmtpd = append(f.Bsmtpd, value)
	}
}

func (f figure) String() string {
	c := f.cells()
	s := c[1] + ":"
	if c[2] != "" {
		s += " bsmtpd " + c[2]
	}
	if c[3] != "" {
		s += " Postfix " + c[3]
	}
	if c[4] != "" {
		s += ", ratio " + c[4]
	}
	if c[5] != "" {
		s += "; to reach " + c[5]
	}
	if c[6] != "" {
		s += ": " + c[6]
	}
	if f.Note != "" {
		s += " (" + f.Note + ")"
	}
	return s
}

// cells of a row: scenario, figure, bsmtpd, Postfix, ratio, target, reached.
func (f figure) cells() [7]string {
	name := f.Name
	if f.Unit != "" {
		name += ", " + f.Unit
	}
	c := [7]string{f.Scenario, name, values(f.Bsmtpd), values(f.Postfix), "", f.Target.String(), f.verdict()}
	if r := f.ratio(); r != 0 {
		c[4] = number(r)
	}
	switch {
	case f.Skipped != "":
		c[2] = "skipped: " + f.Skipped
	case f.Failed != "":
		why := strings.ReplaceAll(f.Failed, "\n", " ")
		c[2] = "failed: " + why[:min(len(why), maxFailed)]
	}
	return c
}

// values are the median, and the least and the most if there are several.
func values(v []float64) string {
	switch len(v) {
	case 0:
		return ""
	case 1:
		return number(v[0])
	}
	least, most := v[0], v[0]
	for _, x := range v {
		least, most = min(least, x), max(most, x)
	}
	return fmt.Sprintf("%s (%s–%s)", number(median(v)), number(least), number(most))
}

// number writes three digits that count, thousands with commas.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	if a := math.Abs(v); a < 1000 {
		digits := max(0, 2-int(math.Floor(math.Log10(a))))
		s := fmt.Sprintf("%.*f", digits, v)
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	scale := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	s := fmt.Sprintf("%.0f", math.Round(v/scale)*scale)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
