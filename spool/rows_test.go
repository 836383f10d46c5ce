package spool

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"bsmtpd/kv"
)

var update = flag.Bool("update", false, "write testdata anew")

const goldenFile = "testdata/rows.golden"

// fill gives every field a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("cbor") != "-" {
				fill(v.Field(i), n)
			}
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		panic("no sample of " + v.Type().String())
	}
}

// Rows stand on disks. A field may be added with a new number (then run with
// -update); any other change loses what old rows say, or makes them unreadable.
func TestTheRowsDoNotChange(t *testing.T) {
	var got strings.Builder
	for _, row := range []any{&Queue{}, &Message{}, &bodyRow{}, &Owed{}, &Removed{}, &Hold{}, &Aside{}} {
		n := 0
		fill(reflect.ValueOf(row).Elem(), &n)
		fmt.Fprintf(&got, "%T %x\n", row, kv.Encode(row))
		back := reflect.New(reflect.TypeOf(row).Elem())
		if err := kv.Decode(kv.Encode(row), back.Interface()); err != nil || !reflect.DeepEqual(back.Interface(), row) {
			t.Errorf("%T came back as %+v, %v", row, back.Elem(), err)
		}
	}
	for name, key := range map[string][]byte{
		`q/account/a`: queueKey("account/a"),
		`s/\x00\x00\x00\x00\x00\x00\x00\x07out/x`:                                   schedKey(7, "out/x"),
		`m/account/a\x00\x00\x00\x00\x00\x00\x00\x00\a`:                             messageKey("account/a", 7),
		`i/\x00\x00\x00\x00\x00\x00\x00\aaccount/a`:                                 whereKey(7, "account/a"),
		`B/\x00\x00\x00\x00\x00\x00\x00\a`:                                          bodyKey(7),
		`b/\x00\x00\x00\x00\x00\x00\x00\a\x00\x00\x00\x02`:                          chunkKey(7, 2),
		`g/\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\a`:          stagedKey(5, 7),
		`e/\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\aout/x`:     timedKey(expiryPrefix, 5, 7, "out/x"),
		`te/\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\aout/x`:    timedKey(trashExpiry, 5, 7, "out/x"),
		`o/\x00\x00\x00\x00\x00\x00\x00\a\x00\x00\x00\x00\x00\x00\x00\x03account/a`: owedKey(OwedKey{ID: 7, Seq: 3, Queue: "account/a"}),
		`tr/\x00\x00\x00\x00\x00\x00\x00\aaccount/a`:                                trashKey(7, "account/a"),
		`x/all`: suspendKey(ScopeAll),
	} {
		name = strings.ReplaceAll(name, `\x07`, `\a`)
		if q := fmt.Sprintf("%q", key); q[1:len(q)-1] != name {
			t.Errorf("the key is %s, it was %s", q[1:len(q)-1], name)
		}
	}
	if *update {
		if err := os.WriteFile(goldenFile, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("rows are written otherwise than before.\nbefore:\n%s\nnow:\n%s", want, got.String())
	}
}
