package smtpd

import (
	"errors"
	"os"
	"time"

	"bsmtpd/mail"
)

// spokeEarly waits a while before the greeting and reports whether the client
// spoke first. RFC 5321 section 3.1 makes the client wait for the greeting; a
// program that only pours out mail does not.
func spokeEarly(w *wire, wait time.Duration) (early bool, err error) {
	if len(w.pending()) > 0 {
		return true, nil
	}
	by := time.Now().Add(wait)
	w.conn.SetReadDeadline(by)
	w.readBy = by
	if w.stopped.Load() {
		return false, stopping()
	}
	n, err := w.conn.Read(w.buf)
	w.w = n
	switch {
	case n > 0:
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded) && !w.stopped.Load():
		return false, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, stopping()
	}
	return false, errGone
}

func errEarly() *refusal {
	return hangUp(reasonEarly, 554, mail.Status{5, 5, 1}, "protocol error: you spoke before the greeting")
}
