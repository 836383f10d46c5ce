package machine

import (
	"encoding/binary"

	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// planted are bugs that a run is to find. They sit at seams that the machine has
// anyway: its transaction, the commands it is given, and the log. Both replicas
// have them alike, so it is not their difference that gives them away.
type planted struct {
	ackEarly     bool // a command is answered before its entry is in the log
	forgetDue    bool // a row of the schedule is not written
	refundTwice  bool // what leaves a queue is taken off the usage twice
	settleUnsent bool // a message counts as sent that was not sent
	keepCharge   bool // what leaves a queue stays charged
	applyTwice   bool // an entry that was applied is applied again after a restart
}

// often is how many entries lie between two that a bug strikes.
const often = 13

func (p *planted) wrap(tx kv.Tx, index uint64) kv.Tx {
	if p == nil || index%often != 0 || !p.forgetDue && !p.refundTwice && !p.keepCharge {
		return tx
	}
	return &crooked{tx, p}
}

// crooked is a transaction that does not do all that it is told.
type crooked struct {
	kv.Tx
	bugs *planted
}

// Set implements kv.Tx.
func (c *crooked) Set(key, value []byte) error {
	switch {
	case c.bugs.forgetDue && hasPrefix(key, "s/"):
		return nil
	case hasPrefix(key, "u/"):
		var next quota.Usage
		must(kv.Decode(value, &next))
		return c.usage(key, next)
	}
	return c.Tx.Set(key, value)
}

// Delete implements kv.Tx.
func (c *crooked) Delete(key []byte) error {
	if hasPrefix(key, "u/") {
		return c.usage(key, quota.Usage{})
	}
	return c.Tx.Delete(key)
}

// usage writes an account's usage, wrongly where it becomes less.
func (c *crooked) usage(key []byte, next quota.Usage) error {
	before, err := quota.Of(c.Tx, mail.Login(key[2:]))
	must(err)
	if next.Messages < before.Messages {
		switch {
		case c.bugs.keepCharge:
			return nil
		case c.bugs.refundTwice:
			next.Bytes = max(0, next.Bytes-(before.Bytes-next.Bytes))
			next.Messages = max(0, next.Messages-(before.Messages-next.Messages))
		}
	}
	if next == (quota.Usage{}) {
		return c.Tx.Delete(key)
	}
	return c.Tx.Set(key, kv.Encode(next))
}

// settle lets a report of a session also speak of a message that it has not sent.
func (p *planted) settle(c *spool.Settle, rows spool.Reader, handed func(mail.ID) bool) {
	if p == nil || !p.settleUnsent || len(c.Results) == 0 || c.Session%3 != 0 {
		return
	}
	var err error
	for m := range rows.Messages(c.Queue, 0, &err) {
		if handed(m.ID) {
			continue
		}
		r := spool.Result{ID: m.ID}
		for _, to := range m.To {
			r.To = append(r.To, spool.RecipientResult{Address: to.Address, Fate: spool.Sent})
		}
		c.Results = append(c.Results, r)
		break
	}
	must(err)
}

// forgetLast lets a machine forget that it has applied its last entry.
func forgetLast(tx kv.Tx) error {
	key := []byte("0/applied")
	v, err := tx.Get(key)
	if err != nil || v == nil {
		return err
	}
	binary.BigEndian.PutUint64(v, binary.BigEndian.Uint64(v)-1)
	return tx.Set(key, v)
}
