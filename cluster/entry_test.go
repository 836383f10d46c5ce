package cluster

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

var update = flag.Bool("update", false, "write testdata anew")

// samples is one command of each kind.
var samples = map[Kind]any{
	kindEnqueue: &spool.Enqueue{}, kindStage: &spool.Stage{}, kindClaim: &spool.Claim{}, kindSettle: &spool.Settle{},
	kindFinish: &spool.Finish{}, kindTrigger: &spool.Trigger{}, kindSweep: &spool.Sweep{}, kindExpire: &spool.Expire{},
	kindAct: &spool.Act{}, kindHoldQueue: &spool.HoldQueue{}, kindSuspend: &spool.Suspend{}, kindWaive: &spool.Waive{},
	kindLogin: &directory.Event{}, kindPutAccounts: &directory.PutAccounts{}, kindPutDomains: &directory.PutDomains{},
	kindRemoveAccount: &directory.RemoveAccount{}, kindRemoveDomain: &directory.RemoveDomain{}, kindPutSettings: &Settings{},
}

// fill gives every field a value of its own, so that a field that is added, lost
// or renumbered shows.
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
		if v.Type() == reflect.TypeFor[netip.Addr]() {
			v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{192, 0, 2, byte(*n)})))
			return
		}
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
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		panic("no sample of " + v.Type().String())
	}
}

const goldenFile = "testdata/commands.golden"

// The bytes of a command stand in logs on disks. Who changes them unawares makes
// a node that stops at its own log. If this test fails: a field may be added with
// a new number (raise the command's version, then run with -update); any other
// change needs a new kind.
func TestTheEncodingOfCommandsDoesNotChange(t *testing.T) {
	var got strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(rules)) {
		sample, ok := samples[kind]
		if !ok {
			t.Errorf("kind %d has no sample here", kind)
			continue
		}
		n := 0
		fill(reflect.ValueOf(sample).Elem(), &n)
		c := command{kind: kind, version: rules[kind].version, fields: kv.Encode(sample), beside: []byte("beside")}
		fmt.Fprintf(&got, "%d %T %x\n", kind, sample, appendCommand(appendEntryHeader(nil, 0x0102030405060708), &c))
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
		t.Errorf("commands are written otherwise than before.\nbefore:\n%s\nnow:\n%s", want, got.String())
	}
	for line := range strings.Lines(string(want)) { // and what was written before is understood
		var kind Kind
		var name, digits string
		if _, err := fmt.Sscan(line, &kind, &name, &digits); err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		at, cs, err := decodeEntry(data)
		if err != nil || at != 0x0102030405060708 || len(cs) != 1 || cs[0].kind != kind || string(cs[0].beside) != "beside" {
			t.Errorf("%s: %d, %+v, %v", name, at, cs, err)
			continue
		}
		back := reflect.New(reflect.TypeOf(samples[kind]).Elem())
		if err := kv.Decode(cs[0].fields, back.Interface()); err != nil || !reflect.DeepEqual(back.Interface(), samples[kind]) {
			t.Errorf("%s came back as %+v, %v", name, back.Elem(), err)
		}
	}
}

func TestAnEntryHasOneFormAndBounds(t *testing.T) {
	var many []command
	for range maxEntryCommands + 1 {
		many = append(many, command{kind: kindExpire, version: 1})
	}
	if _, _, err := decodeEntry(entryOf(1, many...)); err == nil {
		t.Errorf("%d commands in one entry were taken", len(many))
	}
	if _, cs, err := decodeEntry(entryOf(1, many[1:]...)); err != nil || len(cs) != maxEntryCommands {
		t.Errorf("%d commands: %d, %v", maxEntryCommands, len(cs), err)
	}
	whole := entryOf(mail.Time(7), mailCmd("body", "account/a"), accountCmd("a", 1))
	for n := range len(whole) {
		at, cs, err := decodeEntry(whole[:n])
		if err == nil && !bytes.Equal(entryOf(at, cs...), whole[:n]) {
			t.Errorf("the first %d bytes of an entry were taken for another", n)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte{})
	f.Add(entryOf(1))
	f.Add(entryOf(1, mailCmd("body", "account/a"), cmd(kindExpire, spool.Expire{Limit: 1})))
	f.Add(append(entryOf(1), bytes.Repeat([]byte{0xff}, 40)...))
	f.Add(append(entryOf(1), 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		at, cs, err := decodeEntry(data)
		if err != nil {
			return
		}
		if len(cs) > maxEntryCommands {
			t.Fatalf("%d commands", len(cs))
		}
		size := 0
		for _, c := range cs {
			size += len(c.fields) + len(c.beside)
		}
		if size > len(data) {
			t.Fatalf("%d bytes of commands out of %d", size, len(data))
		}
		again, cs2, err := decodeEntry(entryOf(at, cs...))
		if err != nil || again != at || len(cs2) != len(cs) {
			t.Fatalf("not stable: %v", err)
		}
	})
}
