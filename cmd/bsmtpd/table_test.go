package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestATableIsAlignedByItsWidestCells(t *testing.T) {
	var b bytes.Buffer
	tab := newTable(&b, "NAME", ">SIZE", "WORDS")
	tab.row("jansen", "1", "é")
	tab.row("a", "20MiB", "two words")
	if err := tab.end(); err != nil {
		t.Fatal(err)
	}
	want := "NAME     SIZE  WORDS\njansen      1  é\na       20MiB  two words\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

func TestATableWithoutRowsIsEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := newTable(&b, "NAME").end(); err != nil || b.Len() != 0 {
		t.Errorf("%v, %q", err, &b)
	}
}

func TestALongTableStreamsAndKeepsItsColumns(t *testing.T) {
	var b bytes.Buffer
	tab := newTable(&b, "N", "NAME")
	for i := range 3 * tableLookahead {
		tab.row(fmt.Sprint(i), "x")
		if len(tab.rows) > tableLookahead+1 {
			t.Fatalf("%d rows are held back", len(tab.rows))
		}
	}
	tab.end()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3*tableLookahead+1 || lines[1] != "0    x" || lines[len(lines)-1] != "1499  x" {
		t.Errorf("%d lines, first %q, last %q", len(lines), lines[1], lines[len(lines)-1])
	}
}

func TestWordsOfStrangersCannotMoveTheCursor(t *testing.T) {
	for in, want := range map[string]string{
		"550 no\r\nsuch\tuser": "550 no  such user",
		"\x1b[2Jgone":          "?[2Jgone",
		"\u202eevil\u200b":     "?evil?",
		"\xff\xfe":             "??",
		"élise@exemple.fr":     "élise@exemple.fr",
	} {
		if got := harmless(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	var b bytes.Buffer
	if n, err := (defused{&b}).Write([]byte("a\r\n\tb\x1b]0;x\a\n")); n != 12 || err != nil || b.String() != "a\n\tb?]0;x?\n" {
		t.Errorf("%d %v %q", n, err, &b)
	}
}

func TestTimesAreShownInTheirTwoLargestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m00s", 61 * time.Second: "1m01s",
		3*time.Hour + 12*time.Minute + 59*time.Second: "3h12m", 50 * time.Hour: "2d02h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	now := time.Now()
	if in(now, time.Time{}) != "" || in(now, now) != "now" || in(now, now.Add(time.Hour)) != "in 1h00m" || age(now, time.Time{}) != "" {
		t.Error("never, now and later are told wrongly")
	}
}

func TestAgesOfTheCommandLine(t *testing.T) {
	for in, want := range map[string]time.Duration{"90s": 90 * time.Second, "20m": 20 * time.Minute, "1h30m": 90 * time.Minute,
		"3d": 72 * time.Hour, "2w": 14 * 24 * time.Hour, "0s": 0} {
		if got, err := parseAge(in); err != nil || got != want {
			t.Errorf("%s is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "3", "d", "-1h", "-1d", "1.5d", "99999d", "soon"} {
		if got, err := parseAge(in); err == nil {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

func TestAMeterDrawsOnOneLineAndWipesIt(t *testing.T) {
	var b bytes.Buffer
	m := &meter{w: &b, what: "held", began: time.Now()}
	m.show(5, 10)
	m.last = time.Time{}
	m.show(7, 0)
	m.end()
	want := "\r[###############...............] 5 of 10 held" + "\r7 held" + strings.Repeat(" ", 39) + "\r" + strings.Repeat(" ", 45) + "\r"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
	quiet := (&app{err: &b}).meter("held")
	b.Reset()
	quiet.show(1, 2)
	quiet.part(1, 1, 2)
	quiet.end()
	if b.Len() != 0 {
		t.Errorf("a meter that nobody looks at wrote %q", &b)
	}
}
