package api

import (
	"net"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/spool"
)

// What may stand in the way of a customer's mail, as changes of a town where all is
// well.

// mxIs gives the customer's domain other MX records.
func mxIs(hosts ...string) func(*town) {
	return func(w *town) {
		var list []*net.MX
		for i, h := range hosts {
			list = append(list, &net.MX{Host: h, Pref: uint16(10 * (i + 1))})
		}
		w.out.mx["jansen.example"] = list
	}
}

// patched changes the account.
func patched(p wire.AccountPatch) func(*town) {
	return func(w *town) {
		if _, err := w.admin.SetAccount(w.ctx(), "jansen", p); err != nil {
			w.t.Fatal(err)
		}
	}
}

// bannerIs is what the customer's server says first.
func bannerIs(s string) func(*town) { return func(w *town) { w.out.banners["192.0.2.10:25"] = s } }

// loggedIn begins a session.
func loggedIn(address, session string) func(*town) {
	return func(w *town) {
		if _, err := w.admin.SendLogin(w.ctx(), wire.LoginEvent{Login: "jansen", Address: address, NAS: "nas1", Session: session}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// queuedFor puts a message of that age into the queue.
func queuedFor(age time.Duration) func(*town) {
	return func(w *town) { w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, age) }
}

// heldAlone holds the first n messages by themselves.
func heldAlone(n int) func(*town) {
	return func(w *town) {
		var ids []string
		for m, err := range w.admin.Messages(w.ctx(), wire.Filter{Account: "jansen"}, client.Page{Limit: n}) {
			if err != nil {
				w.t.Fatal(err)
			}
			ids = append(ids, m.QueueID)
		}
		if p, err := w.admin.Act(w.ctx(), wire.Action{Action: "hold", IDs: ids}, nil); err != nil || p.Done != int64(n) {
			w.t.Fatal(p, err)
		}
	}
}

// failedTimes are attempts that could not connect.
func failedTimes(n int) func(*town) {
	return func(w *town) {
		for i := range n {
			w.attempt("account/jansen", "no route to host", time.Duration(50-10*i)*time.Minute)
		}
	}
}

// claimedByAnother is a session of another node at work.
func claimedByAnother(w *town) {
	w.apply(func(m *spool.Moves) error {
		_, err := m.Claim(spool.Claim{Queue: "account/jansen", Node: "n2", Session: 1, Until: m.Now.Add(time.Hour), Cause: spool.CauseTimer})
		return err
	})
}
