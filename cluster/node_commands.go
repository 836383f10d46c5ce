package cluster

import (
	"context"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// One method per command, under the names that the doers' interfaces use. Each
// returns after the command was committed and applied here.

// Claim asks for a queue to push.
func (n *Node) Claim(ctx context.Context, c spool.Claim) (spool.ClaimResult, error) {
	return propose[spool.ClaimResult](ctx, n, kindClaim, c, nil)
}

// Settle reports results of a push session.
func (n *Node) Settle(ctx context.Context, c spool.Settle) (spool.Settled, error) {
	return propose[spool.Settled](ctx, n, kindSettle, c, nil)
}

// Finish ends a push session.
func (n *Node) Finish(ctx context.Context, c spool.Finish) (spool.Finished, error) {
	return propose[spool.Finished](ctx, n, kindFinish, c, nil)
}

// Trigger makes a queue due at once.
func (n *Node) Trigger(ctx context.Context, c spool.Trigger) (spool.Triggered, error) {
	return propose[spool.Triggered](ctx, n, kindTrigger, c, nil)
}

// Sweep looks at one stretch of all queues.
func (n *Node) Sweep(ctx context.Context, c spool.Sweep) (spool.Swept, error) {
	return propose[spool.Swept](ctx, n, kindSweep, c, nil)
}

// Expire does what the passing of time asks for.
func (n *Node) Expire(ctx context.Context, c spool.Expire) (spool.Expired, error) {
	return propose[spool.Expired](ctx, n, kindExpire, c, nil)
}

// Bounds of waiting for push sessions to end for an operator's change.
const (
	busyPause = 20 * time.Millisecond
	busyWait  = 30 * time.Second
)

// Act does an operator's action. Messages that a session may have on the wire are
// waited for: the session is asked to end, then the action is proposed again.
func (n *Node) Act(ctx context.Context, c spool.Act) (spool.Acted, error) {
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	var total spool.Acted
	for {
		acted, err := propose[spool.Acted](ctx, n, kindAct, c, nil)
		if err != nil {
			return total, err
		}
		total.Done += acted.Done
		total.Missing += acted.Missing
		total.Refused = append(total.Refused, acted.Refused...)
		if len(acted.Busy) == 0 {
			return total, nil
		}
		if host.Sleep(ctx, busyPause) != nil {
			total.Busy = acted.Busy
			return total, mail.Fail(mail.Conflict, "a push session is at work on the queue and does not end; try again, or hold the queue first")
		}
		c.Items = acted.Busy
	}
}

// HoldQueue holds a whole queue, or lifts that.
func (n *Node) HoldQueue(ctx context.Context, c spool.HoldQueue) error {
	_, err := propose[none](ctx, n, kindHoldQueue, c, nil)
	return err
}

// Suspend stops delivery by a rule, or resumes it.
func (n *Node) Suspend(ctx context.Context, c spool.Suspend) error {
	_, err := propose[none](ctx, n, kindSuspend, c, nil)
	return err
}

// Waive drops an owed bounce that nobody can be told.
func (n *Node) Waive(ctx context.Context, c spool.Waive) error {
	_, err := propose[none](ctx, n, kindWaive, c, nil)
	return err
}

// Login applies a login event.
func (n *Node) Login(ctx context.Context, e directory.Event) (directory.Seen, error) {
	return propose[directory.Seen](ctx, n, kindLogin, e, nil)
}

// PutAccounts adds or replaces accounts.
func (n *Node) PutAccounts(ctx context.Context, c directory.PutAccounts) ([]directory.Put, error) {
	return propose[[]directory.Put](ctx, n, kindPutAccounts, c, nil)
}

// PutDomains adds or replaces domains.
func (n *Node) PutDomains(ctx context.Context, c directory.PutDomains) ([]directory.Put, error) {
	return propose[[]directory.Put](ctx, n, kindPutDomains, c, nil)
}

// RemoveAccount removes an account that holds no mail and no domains.
func (n *Node) RemoveAccount(ctx context.Context, c directory.RemoveAccount) error {
	_, err := propose[none](ctx, n, kindRemoveAccount, c, nil)
	return err
}

// RemoveDomain removes a domain.
func (n *Node) RemoveDomain(ctx context.Context, c directory.RemoveDomain) error {
	_, err := propose[none](ctx, n, kindRemoveDomain, c, nil)
	return err
}

// PutSettings changes the numbers that all replicas decide by.
func (n *Node) PutSettings(ctx context.Context, s Settings) error {
	_, err := propose[none](ctx, n, kindPutSettings, s, nil)
	return err
}
