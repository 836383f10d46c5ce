package quota

import (
	"testing"

	"bsmtpd/kv"
	"bsmtpd/mail"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// Whatever comes and goes, usage is the sum of what is there, an account never
// takes more than its limit of the moment, and what does not fit changes nothing.
func TestUsageIsTheSumOfWhatIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db, err := kv.Open("state", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		logins := []mail.Login{"a", "aa", "b"}
		held := map[mail.Login][]int64{}
		sum := func(l mail.Login) (n int64) {
			for _, s := range held[l] {
				n += s
			}
			return n
		}
		change := func(f func(kv.Tx) error) error {
			tx := db.Begin()
			if err := f(tx); err != nil {
				tx.Discard()
				return err
			}
			return tx.Commit()
		}
		t.Repeat(map[string]func(*rapid.T){
			"charge": func(t *rapid.T) {
				l, limit := rapid.SampledFrom(logins).Draw(t, "login"), rapid.SampledFrom([]int64{0, 1, 100, 101, 1 << 62}).Draw(t, "limit")
				size := rapid.SampledFrom([]int64{0, 1, 50, 100, 1 << 30}).Draw(t, "size")
				var ok bool
				err := change(func(tx kv.Tx) (err error) { ok, err = Charge(tx, l, size, limit); return err })
				if want := sum(l)+size <= limit; err != nil || ok != want {
					t.Fatalf("%d bytes for %s, who holds %d of %d: %v, %v", size, l, sum(l), limit, ok, err)
				}
				if ok {
					held[l] = append(held[l], size)
				}
			},
			"refund": func(t *rapid.T) {
				l := rapid.SampledFrom(logins).Draw(t, "login")
				n := rapid.IntRange(0, len(held[l])).Draw(t, "messages")
				var bytes int64
				for _, s := range held[l][:n] {
					bytes += s
				}
				if err := change(func(tx kv.Tx) error { return Refund(tx, l, bytes, int64(n)) }); err != nil {
					t.Fatal(err)
				}
				held[l] = held[l][n:]
			},
			"refund too much": func(t *rapid.T) {
				l := rapid.SampledFrom(logins).Draw(t, "login")
				more := rapid.SampledFrom([]Usage{{1, 0}, {0, 1}, {1, 1}}).Draw(t, "more")
				err := change(func(tx kv.Tx) error {
					return Refund(tx, l, sum(l)+more.Bytes, int64(len(held[l]))+more.Messages)
				})
				if mail.KindOf(err) != mail.Broken {
					t.Fatalf("a refund of %+v more than there is: %v", more, err)
				}
			},
			"": func(t *rapid.T) {
				for _, l := range logins {
					if u, err := (Reader{db}).Of(l); err != nil || u != (Usage{sum(l), int64(len(held[l]))}) {
						t.Fatalf("%s holds %v: %+v, %v", l, held[l], u, err)
					}
					if row, err := db.Get(key(l)); err != nil || (row == nil) != (len(held[l]) == 0) {
						t.Fatalf("%s holds %d messages and has the row %x, %v", l, len(held[l]), row, err)
					}
				}
			},
		})
	})
}

func TestALimitIsInclusiveAndALowerOneTakesNothingAway(t *testing.T) {
	for _, c := range []struct {
		held, size, limit int64
		want              bool
	}{
		{0, 100, 100, true}, {0, 101, 100, false}, {99, 1, 100, true}, {100, 0, 100, true}, {100, 1, 100, false},
		{200, 0, 100, false}, {200, 1, 100, false}, {0, 1 << 62, 1<<63 - 1, true}, {0, 1, 0, false}, {0, 0, 0, true},
	} {
		if got := Fits(Usage{Bytes: c.held, Messages: 1}, c.size, c.limit); got != c.want {
			t.Errorf("%d bytes for an account that holds %d of %d: %v", c.size, c.held, c.limit, got)
		}
	}
}

func TestADamagedRowIsReported(t *testing.T) {
	db, err := kv.Open("state", kv.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx := db.Begin()
	tx.Set(key("a"), []byte{0xff})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := Of(db, "a"); mail.KindOf(err) != mail.Broken {
		t.Errorf("a damaged row: %v", err)
	}
}
