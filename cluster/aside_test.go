package cluster

import (
	"testing"
	"time"

	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A usage that does not decode is counted anew, whichever command meets it, and
// on every replica alike.
func TestADamagedUsageIsCountedAnew(t *testing.T) {
	at := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	var hashes []string
	for range 2 {
		r := newReplica(t, vfs.NewMem())
		replies, _ := r.apply(1, entryOf(at, accountCmd("a", 1000)), entryOf(at, mailCmd("12345678", "account/a"), mailCmd("123", "mailbox/a")))
		id := replies[1][0].Value.(spool.Enqueued).ID
		spoil := func() {
			tx := r.db.Begin()
			if err := tx.Set([]byte("u/a"), []byte{0xff}); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		want := func(u quota.Usage, effects []spool.Effect) {
			t.Helper()
			if got, err := quota.Of(r.db, "a"); err != nil || got != u {
				t.Errorf("usage %+v, %v; want %+v", got, err, u)
			}
			told := 0
			for _, e := range effects {
				if e.Kind == spool.EffectDamaged {
					told++
				}
			}
			if told != 1 {
				t.Errorf("told %d times: %+v", told, effects)
			}
		}
		spoil()
		replies, effects := r.apply(3, entryOf(at, mailCmd("12", "account/a")))
		if replies[0][0].Err != nil {
			t.Fatal(replies[0][0].Err)
		}
		want(quota.Usage{Bytes: 13, Messages: 3}, effects)
		spoil()
		replies, effects = r.apply(4, entryOf(at, cmd(kindAct, spool.Act{Action: spool.ActBounce, By: "op", Items: []spool.Item{{Queue: "account/a", ID: id}}})))
		if replies[0][0].Err != nil {
			t.Fatal(replies[0][0].Err)
		}
		want(quota.Usage{Bytes: 5, Messages: 2}, effects)
		hashes = append(hashes, r.hash())
		r.close()
	}
	if hashes[0] != hashes[1] {
		t.Error("two replicas differ")
	}
}
