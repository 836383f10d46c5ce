package spool

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

func arrivals(t *testing.T, r Reader, from Item) (out []Arrival) {
	t.Helper()
	var err error
	for a := range r.Arrivals(from, &err) {
		out = append(out, a)
	}
	if err != nil {
		t.Error(err)
	}
	return out
}

// Across all queues stands what stands in each, in the same order, from wherever
// the reading goes on.
func TestTheWayAcrossAllQueuesMeetsEveryMessageOnce(t *testing.T) {
	s := newStory(t)
	s.limits["jansen2"] = 1 << 20
	for i := range 5 {
		s.Mail("jansen")
		s.Mail("jansen2")
		s.MailTo(MailboxQueue("devries"))
		s.MailTo(OutQueue("example.net"))
		s.Wait(time.Duration(i) * time.Hour)
	}
	held := s.Mail("jansen")
	make1(s.bench, func(m *Moves) (Acted, error) {
		return m.Act(Act{Action: ActHold, Items: []Item{{AccountQueue("jansen"), held}}})
	})
	var want []Message
	var err error
	for q := range s.reader().Queues("", &err) {
		for m := range s.reader().Messages(q.Name, 0, &err) {
			want = append(want, m)
		}
	}
	var got []Message
	for m := range s.reader().Across(Item{}, &err) {
		got = append(got, m)
	}
	if err != nil || len(want) != 21 || !reflect.DeepEqual(got, want) {
		t.Fatalf("across: %d messages, by queue %d (%v)", len(got), len(want), err)
	}
	for i, m := range want {
		rest := arrivals(t, s.reader(), Item{m.Queue, m.ID})
		if len(rest) != len(want)-i-1 {
			t.Errorf("after %s: %d messages, want %d", m.ID, len(rest), len(want)-i-1)
		}
		for j, a := range rest {
			w := want[i+1+j]
			if a.Queue != w.Queue || a.ID != w.ID || a.Arrived != w.Arrived || a.Held != (w.ID == held) || a.HeldUntil != 0 {
				t.Errorf("%+v, want %+v", a, w)
			}
		}
	}
	if rest := arrivals(t, s.reader(), Item{Queue: AccountQueue("jansen2")}); len(rest) != 15 || rest[0].Queue != AccountQueue("jansen2") {
		t.Errorf("from jansen2 on: %d messages, %+v", len(rest), rest[0])
	}
}

func TestABrokenRowIsPassedOverOnTheWayAcross(t *testing.T) {
	s := newStory(t)
	var ids []mail.ID
	for range 3 {
		ids = append(ids, s.Mail("jansen"))
	}
	row, err := s.db.Get(messageKey(AccountQueue("jansen"), ids[1]))
	if err != nil {
		t.Fatal(err)
	}
	s.set1(messageKey(AccountQueue("jansen"), ids[1]), row[:len(row)-1])
	var got []mail.ID
	err = nil
	for a := range s.reader().Arrivals(Item{}, &err) {
		got = append(got, a.ID)
	}
	if mail.KindOf(err) != mail.Broken || !slices.Equal(got, []mail.ID{ids[0], ids[2]}) {
		t.Errorf("got %v and %v, want the first and the last message and what is broken", got, err)
	}
	s.set1(messageKey(AccountQueue("jansen"), ids[1]), row)
}

// set1 writes one row past all moves.
func (b *bench) set1(key, value []byte) {
	b.Helper()
	tx := b.db.Begin()
	if err := tx.Set(key, value); err != nil {
		b.Fatalf("set: %v", err)
	}
	if err := tx.Commit(); err != nil {
		b.Fatalf("commit: %v", err)
	}
}

// What decodeArrival takes out of a row is what decoding it in full gives.
func FuzzArrival(f *testing.F) {
	var all Message
	n := 0
	fill(reflect.ValueOf(&all).Elem(), &n)
	f.Add(kv.Encode(&all))
	f.Add(kv.Encode(&Message{Arrived: 1 << 50}))
	f.Add(kv.Encode(&Message{Arrived: 1 << 50, To: []Recipient{{Address: "x@y.example"}}, Hold: &Hold{By: "me", Until: 1 << 51}}))
	f.Fuzz(func(t *testing.T, row []byte) {
		a, err := decodeArrival("account/a", 1, row)
		m, merr := decodeMessage("account/a", 1, row)
		if merr != nil {
			return // no row of ours; what matters is that there was no panic
		}
		want := Arrival{Item: Item{"account/a", 1}, Arrived: m.Arrived, Held: m.Hold != nil}
		if m.Hold != nil {
			want.HeldUntil = m.Hold.Until
		}
		if err != nil || a != want {
			t.Fatalf("%+v %v, want %+v", a, err, want)
		}
	})
}
