package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"

	"github.com/cockroachdb/datadriven"
)

// words are the arguments of a directive.
type words struct {
	t *testing.T
	d *datadriven.TestData
}

func (w words) text(key, otherwise string) string {
	if w.d.HasArg(key) {
		w.d.ScanArgs(w.t, key, &otherwise)
	}
	return otherwise
}

func (w words) number(key string) uint64 {
	n, err := strconv.ParseUint(w.text(key, "0"), 10, 64)
	if err != nil {
		w.d.Fatalf(w.t, "%s: %v", key, err)
	}
	return n
}

// name is the first word, which has no key.
func (w words) name() string { return w.d.CmdArgs[0].Key }

// from finds a word in a list.
func from[T any](w words, key, otherwise string, list map[string]T) T {
	v, ok := list[w.text(key, otherwise)]
	if !ok {
		w.d.Fatalf(w.t, "%s=%s is not known", key, w.text(key, otherwise))
	}
	return v
}

// proposal is the command that a directive asks for.
func (s *script) proposal(t *testing.T, d *datadriven.TestData) proposal {
	w := words{t, d}
	queue := func() spool.QueueName { return spool.QueueName(w.name()) }
	switch d.Cmd {
	case "account":
		return proposal{fields: directory.PutAccounts{By: "op", Items: []directory.PutAccount{{Account: directory.Account{Login: mail.Login(w.name()),
			Quota: int64(w.number("quota")), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, w.name()[0]})}}, IfVersion: directory.AnyVersion}}}}
	case "mail":
		return s.mail(w)
	case "claim":
		causes := map[string]spool.Cause{"new": spool.CauseNew, "timer": spool.CauseTimer, "login": spool.CauseLogin}
		return proposal{fields: spool.Claim{Queue: queue(), Node: "n1", Session: w.number("session"), Life: 10 * time.Minute,
			Cause: from(w, "cause", "new", causes)}}
	case "settle":
		return s.settle(w)
	case "finish":
		outcomes := map[string]spool.Outcome{"done": spool.OutcomeDone, "failed": spool.OutcomeFailed, "lost": spool.OutcomeLost}
		return proposal{fields: spool.Finish{Queue: queue(), Session: w.number("session"), Outcome: from(w, "outcome", "done", outcomes),
			Began: s.clock, Words: w.text("words", ""), SeenTo: s.ids[len(s.ids)-1]}}
	case "login":
		return proposal{fields: directory.Event{Kind: directory.EventStart, Login: mail.Login(w.name()), NAS: "nas1", Session: w.text("session", "s1"), Source: "radius"}}
	case "act":
		actions := map[string]spool.Action{"hold": spool.ActHold, "release": spool.ActRelease, "remove": spool.ActRemove, "requeue": spool.ActRequeue,
			"bounce": spool.ActBounce, "retry": spool.ActRetry}
		return proposal{fields: spool.Act{Action: from(w, "do", "", actions), Items: []spool.Item{{Queue: queue(), ID: s.id(w)}}, By: "op"}}
	case "hold-queue":
		return proposal{fields: spool.HoldQueue{Queue: queue(), By: "op"}}
	case "release-queue":
		return proposal{fields: spool.HoldQueue{Queue: queue(), By: "op", Release: true}}
	case "trigger":
		return proposal{fields: spool.Trigger{Queue: queue(), Cause: spool.CauseOperator, By: "op"}}
	case "sweep":
		return proposal{fields: spool.Sweep{Limit: 100, RepairOnly: d.HasArg("repair-only")}}
	case "expire":
		return proposal{fields: spool.Expire{Limit: 100}}
	}
	d.Fatalf(t, "the directive %s is not known", d.Cmd)
	return proposal{}
}

func (s *script) id(w words) mail.ID {
	n, err := strconv.Atoi(strings.TrimPrefix(w.text("id", ""), "m"))
	if err != nil || n > len(s.ids) {
		w.d.Fatalf(w.t, "id: there is no message %s", w.text("id", ""))
	}
	return s.ids[n-1]
}

// mail is one message to queues; settles=m1 makes it the notification that is owed
// for that one.
func (s *script) mail(w words) proposal {
	body := []byte(strings.Repeat("x", int(w.number("size"))))
	c := spool.Enqueue{Envelope: mail.Envelope{From: mail.Address(w.text("from", "sender@world.example"))}, Size: int64(len(body))}
	if c.Envelope.From == "null" {
		c.Envelope.From = ""
	}
	notify := map[string]mail.Notify{"": 0, "never": mail.NotifyNever}
	for _, a := range w.d.CmdArgs {
		if q := spool.QueueName(a.Key); q.Valid() {
			c.Targets = append(c.Targets, spool.Target{Queue: q, To: []mail.Recipient{{Address: mail.Address(fmt.Sprintf("r%d@%s", len(c.Targets)+1,
				strings.ReplaceAll(a.Key, "/", "."))), Notify: from(w, "notify", "", notify)}}})
		}
	}
	if w.d.HasArg("settles") {
		var n int
		w.d.ScanArgs(w.t, "settles", &n)
		owes, err := s.spool().Owed(spool.OwedKey{}, 100)
		must(err)
		i := slices.IndexFunc(owes, func(o spool.Owed) bool { return o.Key.ID == s.ids[n-1] })
		if i < 0 {
			w.d.Fatalf(w.t, "nothing is owed for m%d", n)
		}
		c.Settles = &owes[i].Key
	}
	return proposal{c, body}
}

// settle reports one message, for all of its recipients.
func (s *script) settle(w words) proposal {
	fates := map[string]spool.Fate{"sent": spool.Sent, "deferred": spool.Deferred, "failed": spool.Failed}
	fate := from(w, "fate", "sent", fates)
	reply := mail.Reply{Code: []int{0, 250, 451, 550}[fate], Text: "said the other side"}
	q := spool.QueueName(w.name())
	r := spool.Result{ID: s.id(w), Remote: "mx.example"}
	if fate == spool.Deferred {
		r.RetryAt = s.clock.Add(30 * time.Minute)
	}
	m, _, err := s.spool().Message(q, r.ID)
	must(err)
	for _, to := range m.To {
		r.To = append(r.To, spool.RecipientResult{Address: to.Address, Fate: fate, Reply: reply})
	}
	return proposal{fields: spool.Settle{Queue: q, Session: w.number("session"), Results: []spool.Result{r}}}
}
