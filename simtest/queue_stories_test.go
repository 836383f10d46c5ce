package simtest

import (
	"testing"
	"time"
)

// B1: mail is pushed at once to a server that answers.
func TestMailIsPushedAtOnce(t *testing.T) {
	Story(t, func(w *World) {
		w.Account("jansen")
		letters := w.Mail(3)
		w.Sleep(time.Second)
		w.Delivered("jansen", letters...)
	})
}
