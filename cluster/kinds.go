package cluster

import (
	"fmt"
	"strings"

	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// Kind numbers a command. A number is never used again for another meaning; a
// node that meets an unknown one stops rather than diverge.
type Kind uint64

// The kinds of commands.
const (
	kindEnqueue   Kind = 1
	kindStage     Kind = 2
	kindClaim     Kind = 3
	kindSettle    Kind = 4
	kindFinish    Kind = 5
	kindTrigger   Kind = 6
	kindSweep     Kind = 7
	kindExpire    Kind = 8
	kindAct       Kind = 9
	kindHoldQueue Kind = 10
	kindSuspend   Kind = 11
	kindWaive     Kind = 12

	kindLogin         Kind = 20
	kindPutAccounts   Kind = 21
	kindPutDomains    Kind = 22
	kindRemoveAccount Kind = 23
	kindRemoveDomain  Kind = 24

	kindPutSettings Kind = 30
)

// changesDirectory tells the kinds after which a look-up may find something else.
func (k Kind) changesDirectory() bool {
	return k >= kindPutAccounts && k <= kindRemoveDomain
}

// A rule applies the command of one kind. It returns the reply that the proposer
// gets. An error that isAnswer is the proposer's, and leaves no trace in the
// rows; any other stops the node.
type rule struct {
	version uint64 // the newest version of the fields that this build knows
	apply   func(m *moves, c *command) (any, error)
}

// moves is the room in which one command is applied.
type moves struct {
	spool.Moves
	settings *Settings
}

// rules is every command. To add one see CONTRIBUTING.md.
var rules = map[Kind]rule{
	kindEnqueue: {1, typed(func(m *moves, c spool.Enqueue, beside []byte) (spool.Enqueued, error) { return m.Enqueue(c, beside) })},
	kindStage:   {1, typed(func(m *moves, c spool.Stage, beside []byte) (spool.Staged, error) { return m.Stage(c, beside) })},
	kindClaim:   {2, typed(func(m *moves, c spool.Claim, _ []byte) (spool.ClaimResult, error) { return m.Claim(c) })},
	kindSettle:  {1, typed(func(m *moves, c spool.Settle, _ []byte) (spool.Settled, error) { return m.Settle(c) })},
	kindFinish:  {2, typed(func(m *moves, c spool.Finish, _ []byte) (spool.Finished, error) { return m.Finish(c) })},
	kindTrigger: {1, typed(func(m *moves, c spool.Trigger, _ []byte) (spool.Triggered, error) { return m.trigger(c) })},
	kindSweep:   {1, typed(func(m *moves, c spool.Sweep, _ []byte) (spool.Swept, error) { return m.Sweep(c) })},
	kindExpire:  {1, typed(func(m *moves, c spool.Expire, _ []byte) (spool.Expired, error) { return m.Expire(c) })},
	kindAct:     {2, typed(func(m *moves, c spool.Act, _ []byte) (spool.Acted, error) { return m.act(c) })},

	kindHoldQueue: {1, typed(func(m *moves, c spool.HoldQueue, _ []byte) (none, error) { return none{}, m.holdQueue(c) })},
	kindSuspend:   {1, typed(func(m *moves, c spool.Suspend, _ []byte) (none, error) { return none{}, m.suspend(c) })},
	kindWaive:     {1, typed(func(m *moves, c spool.Waive, _ []byte) (none, error) { return none{}, m.Waive(c) })},

	kindLogin: {2, typed(func(m *moves, c directory.Event, _ []byte) (directory.Seen, error) { return m.login(c) })},
	kindPutAccounts: {1, typed(func(m *moves, c directory.PutAccounts, _ []byte) ([]directory.Put, error) {
		return c.Apply(m.Tx, m.Now)
	})},
	kindPutDomains: {1, typed(func(m *moves, c directory.PutDomains, _ []byte) ([]directory.Put, error) { return c.Apply(m.Tx, m.Now) })},

	kindRemoveAccount: {1, typed(func(m *moves, c directory.RemoveAccount, _ []byte) (none, error) { return none{}, m.removeAccount(c) })},
	kindRemoveDomain:  {1, typed(func(m *moves, c directory.RemoveDomain, _ []byte) (none, error) { return none{}, c.Apply(m.Tx, m.Now) })},

	kindPutSettings: {2, typed(func(m *moves, c Settings, _ []byte) (none, error) { return none{}, m.putSettings(c) })},
}

// none is the reply of a command that only succeeds or fails.
type none struct{}

func typed[C, R any](apply func(*moves, C, []byte) (R, error)) func(*moves, *command) (any, error) {
	return func(m *moves, c *command) (any, error) {
		var fields C
		if err := kv.Decode(c.fields, &fields); err != nil {
			return nil, fmt.Errorf("command kind %d: %w", c.kind, err) // not an answer: the log is damaged, or newer
		}
		return apply(m, fields, c.beside)
	}
}

// isAnswer reports whether an error of a rule is meant for whoever proposed the
// command. The kinds are those that depend on rows alone, so every replica
// answers alike. Broken is one of them: the bytes of a row that does not decode
// came from the log, and are the same everywhere. Bytes that this disk alone lost
// fail their checksum (kv.Damage) and stop the node before this is asked.
func isAnswer(err error) bool {
	switch mail.KindOf(err) {
	case mail.Invalid, mail.NotFound, mail.Exists, mail.Conflict, mail.OverQuota, mail.Limit, mail.Denied, mail.Broken:
		return true
	}
	return false
}

// charge is the quota's answer for the spool: the limit is the account's at this
// moment of the log.
func (m *moves) charge(login mail.Login, size int64) (spool.TargetResult, error) {
	a, err := directory.Reader{R: m.Tx}.Account(login)
	if err != nil {
		return spool.TargetResult{}, err
	}
	if a == nil {
		return spool.TargetResult{Refusal: spool.NoAccount}, nil
	}
	limit := m.settings.Limits.QuotaOf(a)
	ok, err := quota.Charge(m.Tx, login, size, limit)
	if mail.KindOf(err) == mail.Broken && !kv.IsDamage(err) {
		if err := m.recount(login, err); err != nil {
			return spool.TargetResult{}, err
		}
		ok, err = quota.Charge(m.Tx, login, size, limit)
	}
	if err != nil || ok {
		return spool.TargetResult{}, err
	}
	u, err := quota.Of(m.Tx, login)
	return spool.TargetResult{Refusal: spool.OverQuota, Usage: u.Bytes, Quota: limit}, err
}

// refund gives room back. What it is for has left the rows before, so a damaged
// usage is made anew of what is there.
func (m *moves) refund(login mail.Login, bytes, messages int64) error {
	err := quota.Refund(m.Tx, login, bytes, messages)
	if mail.KindOf(err) != mail.Broken || kv.IsDamage(err) {
		return err
	}
	return m.recount(login, err)
}

// recount makes the usage of an account anew from its messages.
func (m *moves) recount(login mail.Login, why error) error {
	bytes, messages, err := spool.Reader{R: m.Tx}.Holds(login)
	if err != nil {
		return err
	}
	m.Effects = append(m.Effects, spool.Effect{Kind: spool.EffectDamaged, Queue: spool.AccountQueue(login), Login: login,
		Text: "counted anew: " + why.Error()})
	return quota.Set(m.Tx, login, quota.Usage{Bytes: bytes, Messages: messages})
}

// login brings a login event to the directory (presence) and then to the spool
// (debounce, push).
func (m *moves) login(e directory.Event) (directory.Seen, error) {
	seen, err := e.Apply(m.Tx, m.Now, m.settings.Limits.SessionLife)
	if err != nil {
		return seen, err
	}
	if seen.Mended != "" {
		m.Effects = append(m.Effects, spool.Effect{Kind: spool.EffectDamaged, Login: seen.Login, Text: seen.Mended})
	}
	if !seen.Triggers {
		return seen, nil
	}
	seen.Debounced, seen.Queued, err = m.LoginTrigger(spool.AccountQueue(seen.Login))
	return seen, err
}

func (m *moves) removeAccount(c directory.RemoveAccount) error {
	u, err := quota.Of(m.Tx, c.Login)
	if err != nil {
		return err
	}
	if u.Messages > 0 {
		return mail.Fail(mail.Conflict, fmt.Sprintf("account %s still holds %d messages (%s); deliver, bounce or remove them first: bsmtpd queue list --account %s",
			c.Login, u.Messages, mail.Size(u.Bytes), c.Login))
	}
	if err := c.Apply(m.Tx, m.Now); err != nil {
		return err
	}
	if err := m.Forget(spool.AccountQueue(c.Login)); err != nil {
		return err
	}
	return m.Forget(spool.MailboxQueue(c.Login))
}

func (m *moves) audit(by, action, object, after, reason string) error {
	return directory.AuditRecord{At: m.Now, By: by, Action: action, Object: object, After: after, Reason: reason}.Apply(m.Tx, m.Now)
}

func (m *moves) trigger(c spool.Trigger) (spool.Triggered, error) {
	t, err := m.Trigger(c)
	if err == nil && c.By != "" {
		err = m.audit(c.By, "queue retry", string(c.Queue), "", "")
	}
	return t, err
}

func (m *moves) act(c spool.Act) (spool.Acted, error) {
	acted, err := m.Act(c)
	if err != nil || acted.Done == 0 {
		return acted, err
	}
	busy := make(map[spool.Item]bool, len(acted.Busy))
	for _, it := range acted.Busy {
		busy[it] = true
	}
	var ids []string
	for _, it := range c.Items {
		if !busy[it] {
			ids = append(ids, string(it.Queue)+" "+it.ID.String())
		}
	}
	object := fmt.Sprintf("%d messages", acted.Done)
	if c.Filter != "" {
		object += " of " + c.Filter
	} else if acted.Done == 1 && len(ids) == 1 {
		object = ids[0]
	}
	return acted, m.audit(c.By, "queue "+c.Action.String(), object, strings.Join(ids, "\n"), c.Reason)
}

func (m *moves) holdQueue(c spool.HoldQueue) error {
	if err := m.HoldQueue(c); err != nil {
		return err
	}
	action := "queue hold"
	if c.Release {
		action = "queue release"
	}
	return m.audit(c.By, action, string(c.Queue), "", c.Reason)
}

func (m *moves) suspend(c spool.Suspend) error {
	if err := m.Suspend(c); err != nil {
		return err
	}
	action := "delivery suspend"
	if c.Resume {
		action = "delivery resume"
	}
	return m.audit(c.By, action, string(c.Scope), "", c.Reason)
}

func (m *moves) putSettings(s Settings) error {
	if err := s.Check(); err != nil {
		return mail.Fail(mail.Invalid, err.Error())
	}
	*m.settings = s
	return m.Tx.Set([]byte(settingsKey), kv.Encode(s))
}
