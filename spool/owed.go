package spool

import (
	"fmt"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// owe writes down that a message's sender is to be told about some recipients.
// The caller has counted the body once for it (or calls oweKeeping).
func (m *Moves) owe(msg *Message, to []OwedRecipient) error {
	seq, err := m.nextOwed()
	if err != nil {
		return err
	}
	o := Owed{From: msg.From, Return: msg.Return, EnvID: msg.EnvID, Arrived: msg.Arrived, Since: m.Now,
		Size: msg.Size, Body: msg.Body, UTF8: msg.UTF8, EightBit: msg.EightBit, To: to}
	for i := range o.To {
		o.To[i].Reply.Text = clip(o.To[i].Reply.Text)
	}
	m.effect(EffectOwed, msg.Queue, CauseNone)
	return m.Tx.Set(owedKey(OwedKey{ID: msg.ID, Queue: msg.Queue, Seq: seq}), kv.Encode(o))
}

// oweKeeping is owe for a body that is counted here.
func (m *Moves) oweKeeping(msg *Message, to []OwedRecipient) error {
	if err := m.ref(msg.Body, 1); err != nil {
		return err
	}
	return m.owe(msg, to)
}

func (m *Moves) nextOwed() (uint64, error) {
	v, err := m.Tx.Get([]byte(owedSeqKey))
	if err != nil {
		return 0, err
	}
	var n uint64
	if v != nil {
		if n, _, err = cutU64(v); err != nil {
			if n, err = m.lastOwed(); err != nil {
				return 0, err
			}
		}
	}
	n++
	return n, m.Tx.Set([]byte(owedSeqKey), u64(nil, n))
}

// lastOwed is the greatest number of an owed bounce that is still there. Those that
// are not may have had greater ones; only two that are there must differ.
func (m *Moves) lastOwed() (last uint64, err error) {
	lower, upper := prefixRange([]byte(owedPrefix))
	for k := range m.Tx.Scan(lower, upper, &err) {
		if _, rest, kerr := cutU64(k[len(owedPrefix):]); kerr == nil {
			if seq, _, kerr := cutU64(rest); kerr == nil {
				last = max(last, seq)
			}
		}
	}
	return last, err
}

// reported is the part of a message's recipients that its sender wants to hear of.
func reported(msg *Message, action NotifyAction, cause FailCause, reply func(*Recipient) mail.Reply, now mail.Time) []OwedRecipient {
	if msg.From.IsNull() {
		return nil
	}
	var out []OwedRecipient
	for i := range msg.To {
		if r := &msg.To[i]; r.Notify.OnFailure() {
			out = append(out, OwedRecipient{Address: r.Address, Original: r.Original, Action: action, Cause: cause,
				Reply: reply(r), Last: now})
		}
	}
	return out
}

// oweRefused owes the bounce of a target that was refused while others were
// accepted.
func (m *Moves) oweRefused(msg *Message, why Refusal) error {
	cause, reply := FailQuota, mail.Reply{Code: 552, Status: mail.Status{5, 2, 2}, Text: "the mailbox is full"}
	if why == NoAccount {
		cause, reply = FailAccount, mail.Reply{Code: 550, Status: mail.Status{5, 1, 1}, Text: "there is no such account any more"}
	}
	to := reported(msg, NotifyFailed, cause, func(*Recipient) mail.Reply { return reply }, m.Now)
	if len(to) == 0 {
		return nil
	}
	return m.owe(msg, to)
}

// clearOwed removes an owed bounce whose notification is being queued.
func (m *Moves) clearOwed(k OwedKey) error {
	v, err := m.Tx.Get(owedKey(k))
	if err != nil {
		return err
	}
	if v == nil {
		return &mail.Error{Op: "spool", Kind: mail.NotFound, Err: fmt.Errorf("the bounce of %s is not owed any more", k.ID)}
	}
	var o Owed
	if err := kv.Decode(v, &o); err != nil { // its body is left over
		return m.setAside(owedKey(k), k.Queue, brokenRow(fmt.Sprintf("the bounce owed for %s", k.ID), err))
	}
	if err := m.Tx.Delete(owedKey(k)); err != nil {
		return err
	}
	return m.unref(o.Body)
}

// Waive drops an owed bounce that nobody can be told.
func (m *Moves) Waive(c Waive) error { return m.clearOwed(c.Key) }
