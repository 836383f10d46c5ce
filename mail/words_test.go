package mail

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIDsSortAsTheyWereGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := rapid.Uint64Max(1<<48 - 1)
		place := rapid.IntRange(0, MaxPlace)
		a, b := NewID(index.Draw(t, "index"), place.Draw(t, "place")), NewID(index.Draw(t, "index"), place.Draw(t, "place"))
		if (a < b) != (a.String() < b.String()) || len(a.String()) != 13 {
			t.Fatalf("%d %d are written %s %s", a, b, a, b)
		}
		for _, s := range []string{a.String(), strings.ToLower(a.String())} {
			if got, err := ParseID(s); err != nil || got != a {
				t.Fatalf("%s is read as %d, %v; it is %d", s, got, err, a)
			}
		}
	})
	for name, f := range map[string]func(){
		"index": func() { NewID(1<<48, 0) }, "place": func() { NewID(1, MaxPlace+1) }, "below": func() { NewID(1, -1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: an ID that would not be unique was given", name)
				}
			}()
			f()
		}()
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{NewID(1, 2).String(), "0000000000000", "VVVVVVVVVVVVV", "0000000000001", "000000000000\n0", "", "ZZZZZZZZZZZZZ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != strings.ToUpper(s) {
			t.Fatalf("%q is read as %s", s, id)
		}
	})
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "4096": 4096, "20MiB": 20 << 20, "20 mib": 20 << 20, "1.5GiB": 3 << 29, "1kB": 1000, "1KiB": 1024, "1TB": 1e12,
		" 7B ": 7, "0.5KiB": 512, "2TiB": 2 << 40,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "B", "MiB", "-1", "-1MiB", "1 apple", "1MiBiB", "NaN", "Inf", "infMiB", "9e99TiB", "1,5GiB", "8388608TiB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q was taken as %d", in, got)
		}
	}
	for want, in := range map[string]Size{"0B": 0, "1023B": 1023, "1KiB": 1024, "1.5KiB": 1536, "20MiB": 20 << 20, "1GiB": 1 << 30, "1TiB": 1 << 40} {
		if got := in.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(in), got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"20MiB", "1.5GiB", "1e3", "0x1p4", "1023.99KiB", "-0", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
		again, err := ParseSize(n.String()) // exact to a tenth of the unit
		if err != nil && n < math.MaxInt64/10*9 {
			t.Fatalf("%d is written %s: %v", n, n, err)
		}
		if err == nil && math.Abs(float64(again-n)) > float64(n)/19 {
			t.Fatalf("%d is written %s, which is %d", n, n, again)
		}
	})
}

func TestParseStatus(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Status
		rest string
	}{
		{"5.2.2 mailbox full", Status{5, 2, 2}, "mailbox full"},
		{"2.0.0 queued as 0000", Status{2, 0, 0}, "queued as 0000"},
		{"4.7.255", Status{4, 7, 255}, ""},
		{"5.1.1  two spaces", Status{5, 1, 1}, " two spaces"},
		{"mailbox full", Status{}, "mailbox full"},
		{"3.1.1 no such class", Status{}, "3.1.1 no such class"},
		{"5.1 short", Status{}, "5.1 short"},
		{"5.1.1.1 long", Status{}, "5.1.1.1 long"},
		{"5.256.1 large", Status{}, "5.256.1 large"},
		{"5.-1.1 sign", Status{}, "5.-1.1 sign"},
		{"192.0.2.1 is listed", Status{}, "192.0.2.1 is listed"},
		{"", Status{}, ""},
	} {
		if got, rest := ParseStatus(c.in); got != c.want || rest != c.rest {
			t.Errorf("%q: %v and %q, want %v and %q", c.in, got, rest, c.want, c.rest)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	for _, s := range []string{"5.2.2 full", "4.0.0", "5.001.1 x", "a.b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		st, rest := ParseStatus(s)
		if st == (Status{}) {
			if rest != s {
				t.Fatalf("%q without a status became %q", s, rest)
			}
			return
		}
		again, r := ParseStatus(st.String() + " " + rest)
		if again != st || r != rest || !strings.HasSuffix(s, rest) {
			t.Fatalf("%q: %v %q, and then %v %q", s, st, rest, again, r)
		}
	})
}

func TestReplies(t *testing.T) {
	for want, r := range map[string]Reply{
		"550 5.1.1 no such user": {550, Status{5, 1, 1}, "no such user"},
		"250 ok":                 {250, Status{}, "ok"},
		"250":                    {Code: 250},
		"connection refused":     {Text: "connection refused"},
		"554 two lines":          {554, Status{}, "two\nlines"},
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v is written %q, want %q", r, got, want)
		}
	}
	for code, want := range map[int]string{0: "...", 250: "+..", 354: "...", 421: ".t.", 552: "..p"} {
		r, got := Reply{Code: code}, []byte("...")
		if r.Positive() {
			got[0] = '+'
		}
		if r.Temporary() {
			got[1] = 't'
		}
		if r.Permanent() {
			got[2] = 'p'
		}
		if string(got) != want {
			t.Errorf("%d is %s, want %s", code, got, want)
		}
	}
}

func TestTimesAreMicroseconds(t *testing.T) {
	at := time.Date(2026, 1, 5, 8, 0, 0, 1999, time.UTC)
	m := At(at)
	if m.Std() != at.Truncate(time.Microsecond) || m.Add(time.Hour).Sub(m) != time.Hour {
		t.Errorf("%v became %v", at, m.Std())
	}
	if At(time.Time{}) != 0 || !Time(0).Std().IsZero() {
		t.Error("never is not never")
	}
}

func TestKindsOfErrorsHaveNames(t *testing.T) {
	for k := range Broken + 1 {
		if got := ParseKind(k.String()); got != k {
			t.Errorf("%s is read as %s", k, got)
		}
	}
	if ParseKind("rubbish") != Other || Kind(200).String() != "other" {
		t.Error("an unknown kind is not other")
	}
}

func TestWhoIsNotified(t *testing.T) {
	for n, want := range map[Notify]string{0: "fd.", NotifyNever: "...", NotifySuccess: "..s", NotifyFailure: "f..", NotifyDelay: ".d.",
		NotifySuccess | NotifyFailure | NotifyDelay: "fds"} {
		got := []byte("...")
		if n.OnFailure() {
			got[0] = 'f'
		}
		if n.OnDelay() {
			got[1] = 'd'
		}
		if n.OnSuccess() {
			got[2] = 's'
		}
		if string(got) != want {
			t.Errorf("NOTIFY %d: %s, want %s", n, got, want)
		}
	}
}
