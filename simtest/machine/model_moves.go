package machine

import (
	"maps"
	"slices"

	"bsmtpd/cluster"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// claim checks who is given a queue. Whether it is kept quiet for an operator is
// read from the reply: that is over within seconds.
func (m *model) claim(c spool.Claim, got spool.ClaimResult) {
	was := m.claims[c.Queue]
	own := c.Session != 0 && was.Session == c.Session && was.Node == c.Node
	expect := spool.Granted
	switch {
	case c.Queue.IsMailbox():
		expect = spool.NotPushed
	case m.waiting(c.Queue) == 0:
		expect = spool.Empty
	case m.held(c.Queue):
		expect = spool.Held
	case m.live(c.Queue) && !own:
		expect = spool.Taken
	case m.suspended(c.Queue):
		expect = spool.Held
	}
	if got.Denial != expect && !(expect == spool.Granted && got.Denial == spool.Held) {
		fail(2, "a claim of %s was answered with %d; expected %d", c.Queue, got.Denial, expect)
	}
	if got.Denial != spool.Granted {
		return
	}
	if got.Until != m.now.Add(c.Life) || c.Session != 0 && got.Session != c.Session || m.numbers[got.Session] && !own {
		fail(2, "a claim of %s for %s was answered with %+v", c.Queue, c.Life, got)
	}
	m.numbers[got.Session] = true
	if !own && got.Cause == spool.CauseLogin && c.Queue.IsAccount() {
		login := c.Queue.Login()
		if m.tries[login]++; m.tries[login] > m.triggers[login] {
			fail(5, "account %s was tried for a login %d times, and %d logins can be the reason", login, m.tries[login], m.triggers[login])
		}
	}
	m.claims[c.Queue] = spool.Claimed{Node: c.Node, Session: got.Session, Until: got.Until}
	delete(m.holds, c.Queue)
}

// stale checks what a session is told about its claim. One whose time has passed
// and that nobody else took may be told either.
func (m *model) stale(q spool.QueueName, session uint64, told bool) {
	mine := m.claims[q].Session == session
	if !mine && !told || mine && m.live(q) && told {
		fail(0, "session %d of %s is told that its claim is lost: %v; the claim is %+v", session, q, told, m.claims[q])
	}
}

func (m *model) settle(c spool.Settle, out spool.Settled) {
	m.stale(c.Queue, c.Session, out.Stale)
	left, debts := 0, 0
	for _, res := range c.Results {
		it := spool.Item{Queue: c.Queue, ID: res.ID}
		msg := m.queues[it]
		if msg == nil {
			continue
		}
		for _, rr := range res.To {
			i := slices.IndexFunc(msg.to, func(r mail.Recipient) bool { return r.Address == rr.Address })
			if i < 0 || out.Stale && rr.Fate != spool.Sent || rr.Fate == spool.Deferred {
				continue
			}
			k := copyKey{it.ID, it.Queue, rr.Address}
			if rr.Fate == spool.Failed {
				m.failed(it, msg, msg.to[i])
			} else if rr.Relayed && msg.to[i].Notify.OnSuccess() && !msg.null {
				m.copies[k] = fate{owed, true}
			} else {
				m.copies[k] = fate{done, true}
			}
			if m.copies[k].place == owed {
				debts++
			}
			msg.to = slices.Delete(msg.to, i, i+1)
		}
		if len(msg.to) == 0 {
			delete(m.queues, it)
			left++
		}
	}
	if out.Removed != left || out.Owed != debts {
		fail(1, "a report about %s was answered with %+v; expected %d messages less and %d more to tell", c.Queue, out, left, debts)
	}
}

func (m *model) finish(c spool.Finish, out spool.Finished) {
	m.stale(c.Queue, c.Session, out.Stale)
	if out.Stale {
		return
	}
	if out.Left != m.waiting(c.Queue) {
		fail(1, "queue %s is said to hold %d messages after a session; it holds %d", c.Queue, out.Left, m.waiting(c.Queue))
	}
	delete(m.claims, c.Queue)
}

func (m *model) sweep(c spool.Sweep, r cluster.Reply) {
	want(r.Err, c.Limit < 1, mail.Invalid)
	if r.Err == nil && answer[spool.Swept](r).Repaired != 0 {
		fail(6, "a sweep found %d queues without a next event", answer[spool.Swept](r).Repaired)
	}
}

// wholeExpiry is a limit that leaves nothing behind.
const wholeExpiry = 500

// expire: a town asks for a little only together with a whole expiry behind it.
func (m *model) expire(c spool.Expire, r cluster.Reply) {
	want(r.Err, c.Limit < 1, mail.Invalid)
	if c.Limit != wholeExpiry {
		return
	}
	if answer[spool.Expired](r).More {
		fail(0, "an expiry of %d rows left some", c.Limit)
	}
	for _, it := range items(m.queues) {
		switch msg := m.queues[it]; {
		case msg.expires == 0 || msg.expires > m.now:
		case m.live(it.Queue): // it may be on the wire
			msg.expires = m.claims[it.Queue].Until
		default:
			m.giveUp(it, msg)
		}
	}
	for id, s := range maps.Clone(m.staged) {
		if s.until <= m.now {
			delete(m.staged, id)
		}
	}
	for it, at := range maps.Clone(m.trashEnd) {
		if at <= m.now {
			for _, to := range m.trash[it].to {
				m.copies[copyKey{it.ID, it.Queue, to.Address}] = fate{place: gone}
			}
			delete(m.trash, it)
			delete(m.trashEnd, it)
		}
	}
	for s, until := range maps.Clone(m.rules) {
		if until != 0 && until <= m.now {
			delete(m.rules, s)
		}
	}
}

func (m *model) act(c spool.Act, out spool.Acted) {
	var mine spool.Acted
	for _, it := range c.Items {
		if c.Action == spool.ActRequeue {
			m.requeue(it, &mine)
			continue
		}
		msg := m.queues[it]
		switch {
		case msg == nil:
			mine.Missing++
			continue
		case m.live(it.Queue) && (c.Action == spool.ActHold || c.Action == spool.ActBounce || c.Action == spool.ActRemove):
			mine.Busy = append(mine.Busy, it)
			continue
		}
		mine.Done++
		msg.moved = true
		switch c.Action {
		case spool.ActHold:
			msg.held = true
		case spool.ActRelease:
			msg.held = false
		case spool.ActBounce:
			m.giveUp(it, msg)
		case spool.ActRemove:
			m.trash[it], m.trashEnd[it] = msg, m.now.Add(m.set.Spool.TrashLife)
			delete(m.queues, it)
			m.put(it, msg, removed)
		}
	}
	if out.Done != mine.Done || out.Missing != mine.Missing || len(out.Refused) != len(mine.Refused) || !slices.Equal(out.Busy, mine.Busy) {
		fail(2, "%s of %v was answered with %+v; expected %+v", c.Action, c.Items, out, mine)
	}
}

func (m *model) put(it spool.Item, msg *message, p place) {
	for _, to := range msg.to {
		m.copies[copyKey{it.ID, it.Queue, to.Address}] = fate{place: p}
	}
}

func (m *model) requeue(it spool.Item, out *spool.Acted) {
	msg := m.trash[it]
	if msg == nil {
		out.Missing++
		return
	}
	if m.charge(it.Queue, msg.size) != spool.Accepted {
		out.Refused = append(out.Refused, "")
		return
	}
	out.Done++
	msg.moved, msg.held = true, false
	if msg.expires != 0 {
		msg.expires = m.now.Add(m.set.Spool.OutLife)
	}
	m.queues[it] = msg
	delete(m.trash, it)
	delete(m.trashEnd, it)
	m.put(it, msg, queued)
}

func (m *model) holdQueue(c spool.HoldQueue, err error) {
	want(err, !c.Queue.Valid(), mail.Invalid)
	switch {
	case err != nil:
	case c.Release:
		delete(m.holds, c.Queue)
	default:
		m.holds[c.Queue] = c.Until
	}
}

func (m *model) suspend(c spool.Suspend, err error) {
	_, there := m.rules[c.Scope]
	want(err, c.Resume && !there, mail.NotFound)
	switch {
	case err != nil:
	case c.Resume:
		delete(m.rules, c.Scope)
	default:
		m.rules[c.Scope] = c.Until
	}
}

// login checks the debounce (B6), and that a session's Start counts once.
func (m *model) login(e directory.Event, r cluster.Reply) {
	seen := answer[directory.Seen](r)
	_, known := m.accounts[e.Login]
	key := string(e.Login) + " " + e.NAS + " " + e.Session
	again := e.Session != "" && m.sessions[key]
	if e.Kind == directory.EventOn || !known {
		if seen.Triggers || seen.Unknown != (e.Kind != directory.EventOn) {
			fail(5, "%+v was answered with %+v", e, seen)
		}
		return
	}
	m.sessions[key] = true
	switch fresh := e.Kind == directory.EventStart && !again; {
	case fresh && !seen.Triggers, e.Kind == directory.EventStop && seen.Triggers:
		fail(5, "%+v was answered with %+v", e, seen)
	case !seen.Triggers:
		return
	}
	last, ever := m.windows[e.Login]
	if within := ever && m.now < last.Add(m.set.Spool.LoginWindow); seen.Debounced != within {
		fail(5, "a login of %s: debounced %v; the last that found mail was %v ago", e.Login, seen.Debounced, m.now.Sub(last))
	}
	q := spool.AccountQueue(e.Login)
	if seen.Queued != m.waiting(q) {
		fail(0, "a login of %s is told of %d messages; there are %d", e.Login, seen.Queued, m.waiting(q))
	}
	pushable := false // held mail is nothing that an attempt could push
	for it, msg := range m.queues {
		pushable = pushable || it.Queue == q && !msg.held
	}
	if !seen.Debounced && pushable && (m.live(q) || !m.held(q)) {
		m.windows[e.Login] = m.now
		m.triggers[e.Login]++
	}
}

func (m *model) putAccounts(c directory.PutAccounts, puts []directory.Put) {
	for i, it := range c.Items {
		_, there := m.accounts[it.Account.Login]
		want(puts[i].Err(), it.IfVersion == 0 && there, mail.Exists)
		if puts[i].Err() == nil {
			m.accounts[it.Account.Login] = it.Account.Quota
		}
	}
}

func (m *model) putDomains(c directory.PutDomains, puts []directory.Put) {
	for i, it := range c.Items {
		_, there := m.accounts[it.Domain.Login]
		want(puts[i].Err(), !there, mail.NotFound)
		if there {
			m.domains[it.Domain.Name] = it.Domain.Login
		}
	}
}

func (m *model) removeAccount(c directory.RemoveAccount, err error) {
	_, there := m.accounts[c.Login]
	_, messages := m.usage(c.Login)
	owns := slices.Contains(slices.Collect(maps.Values(m.domains)), c.Login)
	switch {
	case messages > 0 || there && owns:
		want(err, true, mail.Conflict)
	default:
		want(err, !there, mail.NotFound)
	}
	if err != nil {
		return
	}
	delete(m.accounts, c.Login)
	delete(m.windows, c.Login)
	for key := range maps.Clone(m.sessions) {
		if hasPrefix([]byte(key), string(c.Login)+" ") {
			delete(m.sessions, key)
		}
	}
	for _, q := range []spool.QueueName{spool.AccountQueue(c.Login), spool.MailboxQueue(c.Login)} {
		delete(m.claims, q)
		delete(m.holds, q)
	}
}

func (m *model) putSettings(s cluster.Settings, err error) {
	want(err, s.Check() != nil, mail.Invalid)
	if err == nil {
		m.set = s
		m.retry = max(m.retry, s.Spool.Retry.Microseconds())
	}
}
