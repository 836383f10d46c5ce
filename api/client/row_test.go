package client

import (
	"encoding/json"
	"reflect"
	"testing"

	"bsmtpd/api/wire"
)

// What decodeRow makes of a line is what encoding/json makes of it, whatever stood
// in the row before.
func FuzzRow(f *testing.F) {
	for _, r := range []wire.QueueRow{
		{QueueName: "hold", QueueID: "000000000S002", ArrivalTime: 1, MessageSize: 2, Sender: "a@b.example", Recipients: []wire.Recipient{{Address: "x@y.example"}},
			Account: "jansen", Queue: "account/jansen", Attempts: 3, Failures: 4, NextAttempt: 5},
		{Sender: "é\"\\\n@b.example", Recipients: []wire.Recipient{{Address: "x@y.example", DelayReason: "451 later"}, {Address: "z@y.example"}}},
		{Recipients: []wire.Recipient{}},
		{},
	} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"queue_name":"a","queue_name":"b","recipients":[{}],"attempts":01}`))
	f.Add([]byte(`{"attempts":-1,"message_size":9223372036854775807}`))
	f.Add([]byte(`{"Queue":"x","other":[1,2],"attempts":1.5}`))
	f.Add([]byte(`{"recipients":[{"address":"a","address":"b"}],"recipients":[{"delay_reason":"c"}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var want wire.QueueRow
		werr := json.Unmarshal(line, &want)
		got := wire.QueueRow{QueueName: "hold", Sender: "a", Recipients: []wire.Recipient{{Address: "old", DelayReason: "old"}}, Attempts: 7}
		err := decodeRow(line, &got)
		if (err == nil) != (werr == nil) {
			t.Fatalf("%s: %v, want %v", line, err, werr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%s:\n got %+v\nwant %+v", line, got, want)
		}
	})
}

// Every field of a row that a node writes is known to the fast way; one that was
// forgotten would only be slow.
func TestARowIsReadTheFastWay(t *testing.T) {
	var r wire.QueueRow
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("a")
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Slice:
			r.Recipients = []wire.Recipient{{Address: "x@y.example", DelayReason: "why"}}
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got wire.QueueRow
	if n := testing.AllocsPerRun(100, func() { err = decodeRow(line, &got) }); err != nil || n > 2 || !reflect.DeepEqual(got, r) {
		t.Errorf("%v allocations, %v, %+v", n, err, got)
	}
}
