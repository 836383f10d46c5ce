package cluster

import (
	"slices"
	"testing"

	"bsmtpd/kv"
	"bsmtpd/spool"
)

// What a server has set aside is told for as long as it lies there, and is no
// reason not to start.
func TestVerifyTellsOfRowsThatWereSetAside(t *testing.T) {
	w := newWorld(t)
	w.account("jansen", 1<<20)
	if _, err := w.mail("a body", "jansen"); err != nil {
		t.Fatal(err)
	}
	w.node.Close()
	h, o := w.options(false)
	look := func() Check {
		report, err := Verify(h, o.Dir, o.Node, nil)
		if err != nil || !report.Sound() || report.Refuses() {
			t.Fatalf("%+v, %v", report, err)
		}
		at := slices.IndexFunc(report.Checks, func(c Check) bool { return c.Name == "rows set aside" })
		if at < 0 {
			t.Fatalf("%+v", report.Checks)
		}
		return report.Checks[at]
	}
	if c := look(); c.Warning || c.Count != 0 || c.Do != "" {
		t.Errorf("nothing was set aside: %+v", c)
	}
	db, err := kv.Open("/data/state", kv.Options{FS: w.disk})
	if err != nil {
		t.Fatal(err)
	}
	tx := db.Begin()
	row := spool.Aside{At: 1_767_600_000_000_000, Why: "message 42 in queue account/jansen is damaged", Value: []byte{0xff}}
	for _, key := range []string{"br/m/account/jansen\x00garbled", "br/q/account/devries"} {
		if err := tx.Set([]byte(key), kv.Encode(row)); err != nil {
			t.Fatal(err)
		}
	}
	for _, do := range []func() error{tx.Commit, db.Flush, db.Close} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	c := look()
	if !c.Warning || c.Count != 2 || c.Do == "" || c.Faults[0] != "2026-01-05T08:00:00Z: "+row.Why {
		t.Errorf("two rows were set aside: %+v", c)
	}
}
