package api

import (
	"reflect"
	"testing"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/spool"
)

// The list of everything, read in one walk, is what the lists of the queues are one
// after the other, wherever it is begun, with mail held, suspended and under way.
func TestTheListOfEverythingIsTheListsOfTheQueues(t *testing.T) {
	w, ids := stocked(t)
	run(t, w.admin.HoldQueue(w.ctx(), "account/pietersen", wire.QueueHold{Reason: "asked"}))
	run(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "out/far.example", Reason: "asked"}))
	if _, err := w.admin.Act(w.ctx(), wire.Action{Action: "hold", IDs: []string{ids["b"]}}, nil); err != nil {
		t.Fatal(err)
	}
	var want []wire.QueueRow
	for q := range w.admin.Queues(w.ctx(), true, false, client.Page{}) {
		want = append(want, collect(t, w.admin.Messages(w.ctx(), wire.Filter{Queue: q.Queue}, client.Page{}))...)
	}
	all := collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}))
	if len(all) != len(ids) || !reflect.DeepEqual(all, want) {
		t.Errorf("all: %+v\nwant %+v", all, want)
	}
	for i, r := range all {
		rest := collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{After: r.Queue + ":" + r.QueueID}))
		if len(rest) != len(all)-i-1 || len(rest) > 0 && !reflect.DeepEqual(rest, all[i+1:]) {
			t.Errorf("after %s: %+v", r.QueueID, rest)
		}
	}
}

// A queue whose row is damaged is passed over, and the list says so at its end.
func TestADamagedQueueDoesNotHideTheOthers(t *testing.T) {
	w, _ := stocked(t)
	run(t, w.apply(func(m *spool.Moves) error { return m.Tx.Set([]byte("q/account/jansen"), []byte{0xff}) }))
	n, failed := 0, error(nil)
	for _, err := range w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}) {
		if err != nil {
			failed = err
			break
		}
		n++
	}
	if n != 3 || failed == nil {
		t.Errorf("%d messages and %v, want the 3 of other queues and what is damaged", n, failed)
	}
}
