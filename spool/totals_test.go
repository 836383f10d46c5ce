package spool

import (
	"testing"

	"bsmtpd/kv"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestTotalsCountWhatWaitsAndPassOverMailboxesForTheOldest(t *testing.T) {
	db, err := kv.Open("db", kv.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx := db.Begin()
	id := mail.ID(0)
	m := &Moves{Tx: tx, Set: DefaultSettings(), NewID: func() mail.ID { id++; return id },
		Charge: func(mail.Login, int64) (TargetResult, error) { return TargetResult{}, nil },
		Refund: func(mail.Login, int64, int64) error { return nil }}
	for i, q := range []QueueName{MailboxQueue("jansen"), AccountQueue("jansen"), AccountQueue("jansen"), OutQueue("example.net")} {
		m.Now = mail.Time(1000 + i)
		c := Enqueue{Size: 10, Targets: []Target{{Queue: q, To: []mail.Recipient{{Address: "a@b.example"}}}}}
		if _, err := m.Enqueue(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	// A queue that has lost its next event.
	q, err := m.queue(AccountQueue("jansen"))
	if err != nil {
		t.Fatal(err)
	}
	q.Failing = true
	if err := m.schedule(q, 0, CauseNone); err != nil {
		t.Fatal(err)
	}
	if err := m.putQueue(q); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := Reader{db}.Totals(2000)
	want := Totals{Account: Holding{1, 2, 20}, Mailbox: Holding{1, 1, 10}, Out: Holding{1, 1, 10}, Failing: 1, WithoutNext: 1, Oldest: 1001}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
