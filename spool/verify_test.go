package spool

import (
	"strings"
	"testing"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// verified holds Verify to the rows that the moves have made: it finds no fault
// there, also where it has to go through the bodies in many lots.
func (b *bench) verified() {
	b.Helper()
	for _, atOnce := range []int{1, maxBodiesAtOnce} {
		v := &verifier{Reader: b.reader(), fault: func(f Fault) { b.Errorf("verify: %s", f.Text) }}
		for _, err := range []error{v.messages(), v.queues(), v.others(), v.verifyBodies(atOnce)} {
			if err != nil {
				b.Errorf("verify: %v", err)
			}
		}
	}
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	queue := AccountQueue("jansen")
	other := AccountQueue("devries")
	for _, c := range []struct {
		name, want string
		lost       bool
		damage     func(b *bench, m Message, tx kv.Tx)
	}{
		{"a message that does not decode", "in queue account/jansen is damaged", true, func(b *bench, m Message, tx kv.Tx) { tx.Set(messageKey(queue, m.ID), []byte{0xff}) }},
		{"a queue that does not decode", "queue account/jansen is damaged", true, func(b *bench, m Message, tx kv.Tx) { tx.Set(queueKey(queue), []byte("nonsense")) }},
		{"a queue without a row", "has 2 messages and no row", true, func(b *bench, m Message, tx kv.Tx) { tx.Delete(queueKey(queue)) }},
		{"a body that is gone", "its body is missing", true, func(b *bench, m Message, tx kv.Tx) { tx.Delete(chunkKey(m.Body, 0)) }},
		{"a body that is too short", "its body has 3 bytes", true, func(b *bench, m Message, tx kv.Tx) { tx.Set(chunkKey(m.Body, 0), []byte("abc")) }},
		{"a message that is gone", "counts 2 messages of 12 bytes; it holds 1 of 6", false, func(b *bench, m Message, tx kv.Tx) { tx.Delete(messageKey(queue, m.ID)) }},
		{"a message that is gone, seen in the index", "which is not there", false, func(b *bench, m Message, tx kv.Tx) { tx.Delete(messageKey(queue, m.ID)) }},
		{"held mail that is counted and not there", "counts 2 held messages; it has 0", false, func(b *bench, m Message, tx kv.Tx) {
			q := b.queue(queue)
			q.Held = 2
			tx.Set(queueKey(queue), kv.Encode(&q))
		}},
		{"held mail that is not counted", "counts 0 held messages; it has 1", false, func(b *bench, m Message, tx kv.Tx) {
			m.Hold = &Hold{By: "anna"}
			tx.Set(messageKey(queue, m.ID), kv.Encode(&m))
		}},
		{"an empty queue that counts held mail", "counts 1 held messages; it has 0", false, func(b *bench, m Message, tx kv.Tx) {
			tx.Set(queueKey(other), kv.Encode(&Queue{Name: other, Held: 1}))
		}},
		{"a body that nobody needs", "belongs to no message", false, func(b *bench, m Message, tx kv.Tx) { tx.Set(chunkKey(m.Body+99, 0), []byte("abc")) }},
		{"a body that is counted too seldom", "it would go too early", true, func(b *bench, m Message, tx kv.Tx) {
			msg := m
			msg.Queue = other
			tx.Set(messageKey(other, m.ID), kv.Encode(&msg))
		}},
		{"no schedule", "not on the schedule", false, func(b *bench, m Message, tx kv.Tx) {
			q := b.queue(queue)
			tx.Delete(schedKey(q.Next, queue))
		}},
		{"no index", "not in the index by ID", false, func(b *bench, m Message, tx kv.Tx) { tx.Delete(whereKey(m.ID, queue)) }},
		{"an owed bounce that does not decode", "an owed bounce is damaged", true, func(b *bench, m Message, tx kv.Tx) {
			tx.Set(owedKey(OwedKey{ID: m.ID, Queue: queue, Seq: 1}), []byte{0xff})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			b.limits["jansen"], b.limits["devries"] = 1000, 1000
			var id mail.ID
			for range 2 {
				got := make1(b, func(m *Moves) (Enqueued, error) {
					return m.Enqueue(Enqueue{Size: 6, Targets: []Target{{Queue: queue, To: []mail.Recipient{{Address: "a@jansen.example"}}}}}, []byte("a body"))
				})
				id = got.ID
			}
			b.check()
			msg, ok, err := b.reader().Message(queue, id)
			if err != nil || !ok {
				t.Fatal(err)
			}
			b.must(func(m *Moves) error { c.damage(b, msg, m.Tx); return nil })
			found := false
			_, err = b.reader().Verify(func(f Fault) {
				if strings.Contains(f.Text, c.want) && f.Lost == c.lost {
					found = true
				}
				t.Log(f.Lost, f.Text)
			}, nil)
			if err != nil || !found {
				t.Errorf("%q (lost: %v) was not told; %v", c.want, c.lost, err)
			}
		})
	}
}
