package cluster

import (
	"strings"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/kv"
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

// Who is online is told anew by the access servers: a damaged row of it keeps no
// login out, and somebody hears of it.
func TestADamagedPresenceKeepsNoLoginOut(t *testing.T) {
	at := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	r := newReplica(t, vfs.NewMem())
	defer r.close()
	login := func(session string) command {
		return cmd(kindLogin, directory.Event{Kind: directory.EventStart, Login: "a", NAS: "nas", Session: session})
	}
	r.apply(1, entryOf(at, accountCmd("a", 1000)), entryOf(at, login("1")))
	tx := r.db.Begin()
	for _, key := range []string{"P/a", "p/nas"} {
		if err := tx.Set([]byte(key), []byte{0xff}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	replies, effects := r.apply(3, entryOf(at, login("2")))
	if seen, ok := replies[0][0].Value.(directory.Seen); !ok || !seen.Online || !seen.Triggers {
		t.Errorf("%+v", replies[0][0])
	}
	var told string
	for _, e := range effects {
		if e.Kind == spool.EffectDamaged {
			told += e.Text
		}
	}
	if !strings.Contains(told, "P/a") || !strings.Contains(told, "p/nas") {
		t.Errorf("told %q", told)
	}
}

// A log of a build that knew no ageing is applied as that build applied it, until
// the leader brings its own setting into the log.
func TestOldSettingsLetNoSessionGrowOld(t *testing.T) {
	at := mail.At(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	r := newReplica(t, vfs.NewMem())
	defer r.close()
	if life := r.m.Settings().Limits.SessionLife; life != 0 {
		t.Errorf("without a row: %s", life)
	}
	old := DefaultSettings()
	old.Limits.SessionLife = 0 // is left out of the bytes
	r.apply(1, entryOf(at, command{kind: kindPutSettings, version: 1, fields: kv.Encode(old)}))
	if got := r.m.Settings(); got != old {
		t.Errorf("%+v", got)
	}
	r.apply(2, entryOf(at, cmd(kindPutSettings, DefaultSettings())))
	m, err := LoadMachine(r.db)
	if err != nil || m.Settings() != DefaultSettings() {
		t.Errorf("%+v, %v", m, err)
	}
}
