package kv

import (
	"bytes"
	"testing"
)

// row has a field of every type that rows and commands are made of.
type row struct {
	Text  string            `cbor:"1,keyasint,omitempty"`
	N     int64             `cbor:"2,keyasint,omitempty"`
	Bytes []byte            `cbor:"3,keyasint,omitempty"`
	List  []row             `cbor:"4,keyasint,omitempty"`
	Code  [3]uint8          `cbor:"5,keyasint,omitempty"`
	Ptr   *row              `cbor:"6,keyasint,omitempty"`
	Map   map[string][]byte `cbor:"7,keyasint,omitempty"`
	Big   uint64            `cbor:"8,keyasint,omitempty"`
	Yes   bool              `cbor:"9,keyasint,omitempty"`
}

// A customer's server may answer in Latin-1. Its words go into commands of the
// log; if they could be written but not read, the node could never start again.
func TestWordsInAnyEncodingComeBackAsTheyWere(t *testing.T) {
	for _, words := range []string{"", "ascii", "bo\u00eete", "bo\xeete pleine", "\xff\xfe\x00", "\xed\xa0\x80"} {
		var got row
		if err := Decode(Encode(row{Text: words}), &got); err != nil {
			t.Errorf("%q: %v", words, err)
		} else if got.Text != words {
			t.Errorf("%q came back as %q", words, got.Text)
		}
	}
}

func TestAFieldOfANewerBuildIsAnErrorAndNotDropped(t *testing.T) {
	newer := Encode(struct {
		Text string `cbor:"1,keyasint"`
		New  int    `cbor:"99,keyasint"`
	}{"x", 1})
	if err := Decode(newer, new(row)); err == nil {
		t.Error("a field that this build does not know was dropped silently")
	}
}

func TestDamageIsAnError(t *testing.T) {
	deep := bytes.Repeat([]byte{0xa1, 0x06}, maxNestedLevels+2)
	for name, data := range map[string][]byte{
		"nothing": nil, "cut off": {0xa1, 0x01, 0x63, 'a'}, "followed by rubbish": append(Encode(row{Text: "x"}), 0),
		"a number where a text stands": {0xa1, 0x01, 0x05}, "a list": {0x80 | 1, 1}, "nested too deeply": append(deep, 0xa0),
		"a list said to be huge": {0xa1, 0x04, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"bytes said to be huge":  {0xa1, 0x03, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if err := Decode(data, new(row)); err == nil {
			t.Errorf("%s: decoded without an error", name)
		}
	}
}

func FuzzDecodeOfHostileBytes(f *testing.F) {
	f.Add(Encode(row{}))
	f.Add(Encode(row{Text: "a\xff", N: -1, Bytes: []byte{1}, List: []row{{N: 1}}, Code: [3]uint8{5, 2, 2}, Ptr: &row{},
		Map: map[string][]byte{"a": nil}, Big: 1 << 63, Yes: true}))
	f.Add([]byte{0xa1, 0x04, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0xbf, 0x01, 0x7f, 0x61, 'x', 0xff, 0xff})
	f.Add([]byte{0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var got row
		if Decode(data, &got) != nil {
			return
		}
		once := Encode(got) // what was understood has one form
		var again row
		if err := Decode(once, &again); err != nil {
			t.Fatalf("%x was understood, but not what it was written as: %v", data, err)
		}
		if twice := Encode(again); !bytes.Equal(once, twice) {
			t.Errorf("%x is written as %x and then as %x", data, once, twice)
		}
	})
}
