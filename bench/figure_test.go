package main

import "testing"

func TestNumbersHaveThreeDigitsThatCount(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.01234: "0.0123", 2.5: "2.5", 3: "3", 20: "20", 16.84: "16.8", 999: "999", 1300: "1,300", 12345: "12,300", 100_000: "100,000", 1e6: "1,000,000"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestAFigureIsJudgedByItsMedian(t *testing.T) {
	for _, c := range []struct {
		what string
		f    figure
		want string
	}{
		{"five times Postfix", figure{Bsmtpd: []float64{1, 10_000, 9_000}, Postfix: []float64{1_800, 1_700, 90_000}, Target: target{TimesPostfix: 5}}, "yes"},
		{"not five times Postfix", figure{Bsmtpd: []float64{8_000}, Postfix: []float64{1_800}, Target: target{TimesPostfix: 5}}, "no"},
		{"a third of Postfix", figure{Bsmtpd: []float64{100}, Postfix: []float64{400}, Target: target{PartPostfix: 1. / 3}}, "yes"},
		{"more than a third", figure{Bsmtpd: []float64{200}, Postfix: []float64{400}, Target: target{PartPostfix: 1. / 3}}, "no"},
		{"quick enough", figure{Bsmtpd: []float64{3}, Target: target{AtMost: 3}}, "yes"},
		{"too few", figure{Bsmtpd: []float64{89.9}, Target: target{AtLeast: 90}}, "no"},
		{"no Postfix to compare with", figure{Bsmtpd: []float64{89.9}, Target: target{TimesPostfix: 5}}, ""},
		{"nothing to reach", figure{Bsmtpd: []float64{89.9}}, ""},
	} {
		if got := c.f.verdict(); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
