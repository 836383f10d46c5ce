package kv

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// A batch reads what it wrote, in whichever order it gets, scans, sets and
// deletes, and whether values are small or large; others see all of it or nothing.
func TestBatchReadsItsOwnWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := Open("db", Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		committed := map[string]string{}
		key := rapid.Map(rapid.IntRange(0, 12), func(i int) string { return fmt.Sprintf("k%02d", i) })
		value := rapid.Custom(func(t *rapid.T) string {
			n := rapid.SampledFrom([]int{0, 1, 20, maxTouched, maxTouched + 1, 5000}).Draw(t, "length")
			return string(bytes.Repeat([]byte{byte('a' + rapid.IntRange(0, 25).Draw(t, "letter"))}, n))
		})
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			b, want := s.Begin(), maps.Clone(committed)
			for range rapid.IntRange(0, 20).Draw(t, "steps") {
				k := key.Draw(t, "key")
				switch rapid.SampledFrom([]string{"get", "get", "set", "set", "delete", "scan", "last"}).Draw(t, "step") {
				case "get":
					checkGet(t, b, k, want)
					checkGet(t, s, k, committed)
				case "set":
					want[k] = value.Draw(t, "value")
					if err := b.Set([]byte(k), []byte(want[k])); err != nil {
						t.Fatal(err)
					}
				case "delete":
					delete(want, k)
					if err := b.Delete([]byte(k)); err != nil {
						t.Fatal(err)
					}
				case "scan":
					checkScan(t, b, k, want)
				case "last":
					checkLast(t, b, k, want)
				}
			}
			if rapid.Bool().Draw(t, "commit") {
				if err := b.Commit(); err != nil {
					t.Fatal(err)
				}
				committed = want
			} else if err := b.Discard(); err != nil {
				t.Fatal(err)
			}
			checkScan(t, s, "a", committed)
		}
	})
}

func checkGet(t *rapid.T, r Reader, k string, want map[string]string) {
	v, err := r.Get([]byte(k))
	w, ok := want[k]
	if err != nil || (v != nil) != ok || string(v) != w {
		t.Fatalf("get %s: %.20q, %v; want %.20q, %v", k, v, err, w, ok)
	}
	if len(v) > 0 {
		v[0]++ // the value belongs to the caller
	}
}

func checkScan(t *rapid.T, r Reader, from string, want map[string]string) {
	var err error
	got := map[string]string{}
	var order []string
	for k, v := range r.Scan([]byte(from), []byte("l"), &err) {
		got[string(k)] = string(v)
		order = append(order, string(k))
	}
	wanted := maps.Clone(want)
	maps.DeleteFunc(wanted, func(k, _ string) bool { return k < from })
	if err != nil || !maps.Equal(got, wanted) || !slices.IsSorted(order) {
		t.Fatalf("scan from %s: %d rows %v, %v; want %d", from, len(got), order, err, len(wanted))
	}
}

func checkLast(t *rapid.T, r Reader, below string, want map[string]string) {
	k, v, err := r.Last([]byte("a"), []byte(below))
	last := ""
	for key := range want {
		if key < below {
			last = max(last, key)
		}
	}
	if err != nil || string(k) != last || string(v) != want[last] {
		t.Fatalf("last below %s: %s, %v; want %s", below, k, err, last)
	}
}
