package spool

import (
	"time"

	"bsmtpd/mail"
)

// RetryAccount is when a customer's queue is tried again after an attempt that
// began at began: Settings.Retry later (B3), and never in the past.
func RetryAccount(s Settings, began, now mail.Time) mail.Time {
	return max(began.Add(s.Retry), now)
}

// RetryOut is how long to wait after the n-th failed attempt to the world in a
// row: it doubles from OutRetryFirst up to OutRetryMax (RFC 5321 section
// 4.5.4.1 asks for 30 minutes or more after the first hours).
func RetryOut(s Settings, n int) time.Duration {
	d := s.OutRetryFirst
	for ; n > 1 && d < s.OutRetryMax; n-- {
		d *= 2
	}
	return min(d, s.OutRetryMax)
}

// retryQueue is when a queue is due again after a failed attempt.
func retryQueue(s Settings, q *Queue, now mail.Time) mail.Time {
	if q.Name.IsOut() {
		return max(q.LastAttempt.Add(RetryOut(s, q.Failures)), now)
	}
	return RetryAccount(s, q.LastAttempt, now)
}
