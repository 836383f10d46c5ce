package spool

import (
	"iter"

	"bsmtpd/mail"
)

// Totals sums up what a spool holds.
type Totals struct {
	Account, Mailbox, Out Holding // by kind of queue

	Failing     int // queues whose last attempt failed
	Held        int // queues held as a whole
	Active      int // queues that a session works on
	WithoutNext int // queues with mail and no next event (B24): 0

	Oldest mail.Time // arrival of the oldest message that waits to be pushed; 0: none does
}

// Holding is what queues of one kind hold together.
type Holding struct {
	Queues   int // with mail
	Messages int64
	Bytes    int64
}

// Totals reads all queue rows once: about a microsecond each.
func (r Reader) Totals(now mail.Time) (Totals, error) {
	var t Totals
	var err error
	for q := range r.Queues("", &err) {
		if q.Messages > 0 {
			t.add(&q, now)
		}
	}
	if err != nil && mail.KindOf(err) != mail.Broken {
		return t, err
	}
	t.Oldest, err = r.oldest()
	return t, err
}

func (t *Totals) add(q *Queue, now mail.Time) {
	h := &t.Account
	switch {
	case q.Name.IsMailbox():
		h = &t.Mailbox
	case q.Name.IsOut():
		h = &t.Out
	}
	h.Queues++
	h.Messages += q.Messages
	h.Bytes += q.Bytes
	if q.Failing {
		t.Failing++
	}
	if q.held(now) {
		t.Held++
	}
	if q.claimed(now) {
		t.Active++
	}
	if q.Next == 0 && !q.Name.IsMailbox() && !(q.held(now) && q.Hold.Until == 0) {
		t.WithoutNext++
	}
}

// maxOldestLook bounds the search for the oldest message past those in mailboxes,
// which may stay for years.
const maxOldestLook = 10_000

// oldest finds the arrival of the oldest message outside mailboxes. IDs grow with
// time, so it is the first in the index.
func (r Reader) oldest() (mail.Time, error) {
	var err error
	look := 0
	for id, q := range r.wheres(&err) {
		if look++; look > maxOldestLook {
			break
		}
		if q.IsMailbox() {
			continue
		}
		m, ok, err := r.Message(q, id)
		if mail.KindOf(err) == mail.Broken || err == nil && !ok {
			continue
		}
		return m.Arrived, err
	}
	return 0, err
}

// wheres gives the index of messages in order of their IDs.
func (r Reader) wheres(err *error) iter.Seq2[mail.ID, QueueName] {
	return func(yield func(mail.ID, QueueName) bool) {
		lower, upper := prefixRange([]byte(wherePrefix))
		for k := range r.R.Scan(lower, upper, err) {
			id, rest, kerr := cutU64(k[len(wherePrefix):])
			if kerr == nil && !yield(mail.ID(id), QueueName(rest)) {
				return
			}
		}
	}
}
