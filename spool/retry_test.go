package spool

import (
	"testing"
	"time"

	"bsmtpd/mail"

	"pgregory.net/rapid"
)

func TestBackOffToTheWorld(t *testing.T) {
	s := DefaultSettings()
	for n, want := range map[int]time.Duration{
		-1: 5 * time.Minute, 0: 5 * time.Minute, 1: 5 * time.Minute, 2: 10 * time.Minute, 3: 20 * time.Minute,
		6: 160 * time.Minute, 7: 4 * time.Hour, 8: 4 * time.Hour, 1 << 40: 4 * time.Hour,
	} {
		if got := RetryOut(s, n); got != want {
			t.Errorf("after %d failures: %v, want %v", n, got, want)
		}
	}
}

func TestRetryOfACustomer(t *testing.T) {
	s := DefaultSettings()
	now := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	for _, c := range []struct{ ago, want time.Duration }{
		{0, 20 * time.Minute}, {time.Minute, 19 * time.Minute}, {20 * time.Minute, 0}, {time.Hour, 0}, {1000 * time.Hour, 0},
	} {
		if got := RetryAccount(s, now.Add(-c.ago), now).Sub(now); got != c.want {
			t.Errorf("an attempt %v ago is repeated in %v, want %v", c.ago, got, c.want)
		}
	}
}

// More failures never mean a shorter wait, and no wait leaves its bounds,
// whatever the settings are.
func TestBackOffIsMonotoneAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(label string) time.Duration {
			return time.Duration(rapid.Int64Range(1, int64(100*365*24*time.Hour)).Draw(t, label))
		}
		s := Settings{Retry: d("retry"), OutRetryFirst: d("first"), OutRetryMax: d("max")}
		n := rapid.IntRange(0, 200).Draw(t, "n")
		a, b := RetryOut(s, n), RetryOut(s, n+1)
		if a > b || a < min(s.OutRetryFirst, s.OutRetryMax) || b > s.OutRetryMax {
			t.Fatalf("%d failures wait %v, one more %v; bounds %v to %v", n, a, b, s.OutRetryFirst, s.OutRetryMax)
		}
		now := mail.Time(rapid.Int64Range(1, 1<<52).Draw(t, "now"))
		began := mail.Time(rapid.Int64Range(0, int64(now)).Draw(t, "began"))
		if at := RetryAccount(s, began, now); at < now || at > now.Add(s.Retry) {
			t.Fatalf("an attempt at %d is repeated at %d, now is %d", began, at, now)
		}
	})
}
