package machine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"bsmtpd/cluster"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func timeOf(e []byte) mail.Time { return mail.Time(binary.BigEndian.Uint64(e[1:])) }

func pick[T any](t *town, from ...T) T { return from[t.rng.IntN(len(from))] }

// settle makes the accounts that a town begins with.
func (t *town) settle() {
	t.submit(t.putAccount("anna", 4000), t.putAccount("bert", 0), t.putAccount("carla", 1000))
	t.submit(t.putDomain("anna"), t.putDomain("bert"))
}

func (t *town) putAccount(login mail.Login, quota int64) proposal {
	addr := netip.AddrFrom4([4]byte{203, 0, 113, login[0]})
	version := directory.AnyVersion
	if t.rng.IntN(4) == 0 {
		version = 0
	}
	return proposal{fields: directory.PutAccounts{By: "op", Items: []directory.PutAccount{{IfVersion: version,
		Account: directory.Account{Login: login, Quota: quota, Addresses: []netip.Addr{addr}}}}}}
}

func (t *town) putDomain(login mail.Login) proposal {
	return proposal{fields: directory.PutDomains{By: "op", Items: []directory.PutDomain{{IfVersion: directory.AnyVersion,
		Domain: directory.Domain{Name: mail.Domain(login) + ".example", Login: login}}}}}
}

// step lets one thing happen.
func (t *town) step() {
	kinds := []struct {
		often int
		what  func()
	}{
		{60, t.pushOne}, {25, t.turn}, {20, t.proposeOne}, {12, t.proposeMany}, {14, t.pass}, {4, t.expire}, {3, t.again},
		{6, func() { t.follow(false) }}, {2, func() { t.follow(true) }}, {3, t.node.flush}, {1, t.powerFails}, {1, t.sessionDies}, {1, t.restore}, {1, t.jump},
	}
	total := 0
	for _, k := range kinds {
		total += k.often
	}
	n := t.rng.IntN(total)
	for _, k := range kinds {
		if n -= k.often; n < 0 {
			k.what()
			return
		}
	}
}

func (t *town) pushOne() {
	if all := t.working(); len(all) > 0 {
		t.push(pick(t, all...))
	} else {
		t.turn()
	}
}

func (t *town) powerFails() {
	t.fault("power fails while nothing happens")
	t.crash()
}

func (t *town) sessionDies() {
	if all := t.working(); len(all) > 0 {
		t.die(pick(t, all...))
	}
}

// pass lets time pass.
func (t *town) pass() {
	d := pick(t, time.Second, time.Minute, 5*time.Minute, 20*time.Minute, 4*time.Hour, 30*time.Hour)
	t.clock += mail.Time(t.rng.Int64N(d.Microseconds()))
}

// jump lets an entry come from a node whose clock is wrong.
func (t *town) jump() {
	t.fault("an entry is from another time")
	t.skew = mail.Time(t.rng.Int64N(48*3600*1_000_000) - 24*3600*1_000_000)
}

func (t *town) expire() {
	c := spool.Expire{Limit: wholeExpiry}
	if t.rng.IntN(3) == 0 {
		t.submit(proposal{fields: spool.Expire{Limit: t.rng.IntN(3)}}, proposal{fields: c})
		return
	}
	t.submit(proposal{fields: c})
}

// again proposes something a second time, as whoever was not answered does.
func (t *town) again() {
	if len(t.before) == 0 {
		return
	}
	p := pick(t, t.before...)
	if _, ok := p.fields.(spool.Expire); ok {
		return
	}
	if _, ok := p.fields.(spool.Claim); ok {
		return // each session has a number of its own
	}
	t.fault("a command is repeated")
	t.submit(p)
}

func (t *town) proposeOne() { t.submit(t.draw()) }

func (t *town) proposeMany() {
	var all []proposal
	for range 2 + t.rng.IntN(6) {
		all = append(all, t.draw())
	}
	t.submit(all...)
}

// draw makes a command. Those of sessions are made where sessions are, Expire above.
func (t *town) draw() proposal {
	switch n := t.rng.IntN(100); {
	case n < 40:
		return t.letter()
	case n < 48:
		return t.stage()
	case n < 60:
		return t.login()
	case n < 72:
		return t.act()
	case n < 76:
		return proposal{fields: spool.HoldQueue{Queue: pick(t, queues...), Release: t.rng.IntN(3) > 0, By: "op", Until: t.maybe(3 * time.Hour)}}
	case n < 79:
		return proposal{fields: spool.Suspend{Scope: pick(t, spool.ScopeAll, "account/anna", "out/x.example"), Resume: t.rng.IntN(3) > 0, By: "op",
			Until: t.maybe(3 * time.Hour)}}
	case n < 82:
		return proposal{fields: spool.Trigger{Queue: pick(t, queues...), Cause: pick(t, spool.CauseOperator, spool.CauseETRN), By: pick(t, "", "op")}}
	case n < 85:
		return proposal{fields: spool.Sweep{Limit: t.rng.IntN(9), RepairOnly: t.rng.IntN(2) == 0, After: pick(t, "", queues[t.rng.IntN(len(queues))])}}
	case n < 88:
		return t.waive()
	case n < 92:
		return t.putAccount(pick(t, logins[:3]...), pick[int64](t, 0, 1000, 4000))
	case n < 94:
		return t.putDomain(pick(t, logins...))
	case n < 96:
		return proposal{fields: directory.RemoveDomain{Name: mail.Domain(pick(t, logins...)) + ".example", By: "op"}}
	case n < 99:
		return proposal{fields: directory.RemoveAccount{Login: pick(t, logins...), By: "op"}}
	}
	s := cluster.DefaultSettings()
	s.Spool.Retry = pick(t, 0, time.Minute, 20*time.Minute)
	s.Spool.LoginWindow = pick(t, 0, 20*time.Minute)
	s.Limits.Quota = pick[int64](t, 2000, 20<<20)
	return proposal{fields: s}
}

// maybe is a time ahead, or none.
func (t *town) maybe(within time.Duration) mail.Time {
	if t.rng.IntN(2) == 0 {
		return 0
	}
	return t.clock + mail.Time(t.rng.Int64N(within.Microseconds()))
}

// letter is mail, a notification that is owed, or mail that cannot be.
func (t *town) letter() proposal {
	t.number++
	body := []byte(fmt.Sprintf("letter %d %s", t.number, strings.Repeat("x", t.rng.IntN(400))))
	c := spool.Enqueue{Envelope: mail.Envelope{From: "sender@world.example"}, Size: int64(len(body))}
	if t.rng.IntN(8) == 0 {
		c.Envelope.From = ""
	}
	perm := t.rng.Perm(len(queues))
	for i := range 1 + t.rng.IntN(3) {
		target := spool.Target{Queue: queues[perm[i]]}
		for j := range 1 + t.rng.IntN(3) {
			target.To = append(target.To, mail.Recipient{Address: mail.Address(fmt.Sprintf("r%d.%d.%d@example.com", t.number, i, j)),
				Notify: pick(t, 0, 0, mail.NotifyNever, mail.NotifyFailure|mail.NotifySuccess)})
		}
		c.Targets = append(c.Targets, target)
	}
	switch t.rng.IntN(8) {
	case 0:
		c.Size += int64(t.rng.IntN(2)) // not the body's, perhaps
	case 1, 2:
		if o, ok := t.owedOne(); ok {
			c.Envelope.From, c.Settles = "", &o.Key
		}
	case 3, 4:
		if id, s := t.stagedOne(); s != nil {
			c.Staged, c.Size, body = id, int64(len(s.content)), nil
		}
	}
	return proposal{c, body}
}

// owedOne reads a bounce that is owed, as bounce does.
func (t *town) owedOne() (spool.Owed, bool) {
	all, err := t.node.spool().Owed(spool.OwedKey{}, 10)
	must(err)
	if len(all) == 0 {
		return spool.Owed{}, false
	}
	o := pick(t, all...)
	t.model.knows(o)
	return o, true
}

func (t *town) waive() proposal {
	o, ok := t.owedOne()
	if !ok {
		o.Key = spool.OwedKey{ID: 1, Queue: "account/anna", Seq: 1}
	}
	return proposal{fields: spool.Waive{Key: o.Key, Reason: "nobody listens"}}
}

func (t *town) stagedOne() (spool.BodyID, *stagedBody) {
	var least spool.BodyID
	for id := range t.model.staged {
		if least == 0 || id < least {
			least = id
		}
	}
	return least, t.model.staged[least]
}

func (t *town) stage() proposal {
	t.number++
	c, chunk := spool.Stage{}, []byte(fmt.Sprintf("chunk %d", t.number))
	if id, s := t.stagedOne(); s != nil && t.rng.IntN(2) == 0 {
		c.Body, c.N = id, max(0, s.chunks+pick(t, 0, 0, 0, -1, 1))
	} else if t.rng.IntN(6) == 0 {
		c.Body, c.N = pick(t, 0, mail.ID(77)), t.rng.IntN(2)
	}
	return proposal{c, chunk}
}

func (t *town) login() proposal {
	e := directory.Event{Kind: pick(t, directory.EventStart, directory.EventStart, directory.EventStop, directory.EventInterim),
		Login: pick(t, logins...), NAS: pick(t, "nas1", "nas2"), Session: fmt.Sprintf("s%d", t.number-t.rng.IntN(min(4, t.number+1))), Source: "radius"}
	switch t.rng.IntN(12) {
	case 0:
		e = directory.Event{Kind: directory.EventOn, NAS: e.NAS, Session: e.Session, Source: "radius"}
	case 1:
		e.NAS, e.Session, e.Source, e.Kind = "", "", "http", directory.EventStart
	case 2:
		e.Login = ""
	}
	return proposal{fields: e}
}

func (t *town) act() proposal {
	c := spool.Act{Action: spool.Action(1 + t.rng.IntN(6)), By: "op", Reason: "a step"}
	from := items(t.model.queues)
	if c.Action == spool.ActRequeue {
		from = items(t.model.trash)
	}
	for _, i := range t.rng.Perm(len(from))[:min(len(from), t.rng.IntN(4))] {
		c.Items = append(c.Items, from[i])
	}
	if t.rng.IntN(6) == 0 {
		c.Items = append(c.Items, spool.Item{Queue: pick(t, queues...), ID: 77})
	}
	return proposal{fields: c}
}

// release ends all holds and suspensions, and brings no removed mail back.
func (t *town) release() {
	for _, s := range []spool.Scope{spool.ScopeAll, "account/anna", "out/x.example"} {
		t.submit(proposal{fields: spool.Suspend{Scope: s, Resume: true, By: "op"}})
	}
	for _, q := range queues {
		t.submit(proposal{fields: spool.HoldQueue{Queue: q, Release: true, By: "op"}})
	}
	if all := items(t.model.queues); len(all) > 0 {
		t.submit(proposal{fields: spool.Act{Action: spool.ActRelease, Items: all, By: "op"}})
	}
}
