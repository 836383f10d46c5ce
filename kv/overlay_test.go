package kv

import (
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// An overlay on a batch on a store must read like one map, whatever mixture of
// sets and deletes stands in each layer.
func TestOverlayReadsLikeOneMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := Open("db", Options{FS: vfs.NewMem()})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		model := map[string]string{}
		b := s.Begin()
		change := func(tx Tx, n string) {
			for range rapid.IntRange(0, 8).Draw(rt, n) {
				k := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 1, 2, -1).Draw(rt, "key")
				if rapid.Bool().Draw(rt, "delete") {
					delete(model, k)
					tx.Delete([]byte(k))
				} else {
					v := rapid.StringN(0, 3, -1).Draw(rt, "value")
					model[k] = v
					tx.Set([]byte(k), []byte(v))
				}
			}
		}
		change(b, "stored")
		if err := b.Commit(); err != nil {
			rt.Fatal(err)
		}
		b = s.Begin()
		defer b.Discard()
		change(b, "batch")
		o := NewOverlay(b)
		change(o, "overlay")

		lower, upper := "a", rapid.SampledFrom([]string{"b", "bb", "c", "d"}).Draw(rt, "upper")
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if k >= lower && k < upper {
				want = append(want, k)
			}
		}
		check := func(where string, r Reader) {
			var got []string
			var serr error
			for k, v := range r.Scan([]byte(lower), []byte(upper), &serr) {
				got = append(got, string(k))
				if model[string(k)] != string(v) {
					rt.Fatalf("%s: scan gives %q=%q, want %q", where, k, v, model[string(k)])
				}
			}
			if serr != nil || !slices.Equal(got, want) {
				rt.Fatalf("%s: scan gives %q, want %q (error %v)", where, got, want, serr)
			}
			k, v, err := r.Last([]byte(lower), []byte(upper))
			if err != nil {
				rt.Fatal(err)
			}
			if len(want) == 0 {
				if k != nil {
					rt.Fatalf("%s: last gives %q, want none", where, k)
				}
			} else if w := want[len(want)-1]; string(k) != w || string(v) != model[w] {
				rt.Fatalf("%s: last gives %q, want %q", where, k, w)
			}
			for _, key := range []string{"a", "b", "ab", "cc"} {
				v, err := r.Get([]byte(key))
				w, ok := model[key]
				if err != nil || ok != (v != nil) || string(v) != w {
					rt.Fatalf("%s: get %q gives %q, want %q %v", where, key, v, w, ok)
				}
			}
		}
		check("overlay", o)
		if err := o.Apply(); err != nil {
			rt.Fatal(err)
		}
		check("batch", b)
	})
}

func TestPrefixEndIsAboveEveryKeyOfThePrefix(t *testing.T) {
	if got := string(PrefixEnd([]byte("a/"))); got != "a0" {
		t.Errorf("PrefixEnd(a/) = %q", got)
	}
	if got := string(PrefixEnd([]byte("a\xff"))); got != "b" {
		t.Errorf("PrefixEnd(a\\xff) = %q", got)
	}
}
