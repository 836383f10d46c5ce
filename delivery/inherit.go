package delivery

import (
	"context"

	"bsmtpd/spool"
)

// inherit ends the claims of this node's earlier life. A server that was killed
// leaves those of its sessions in the rows, and until their time is over nobody may
// push these queues: a login would start nothing for ClaimLife. It must run before
// this life makes a claim of its own, for all that bear the node's name are ended.
func (p *Pusher) inherit(ctx context.Context) {
	// The schedule row of a claimed queue stands at the claim's end.
	end := p.Now().Add(p.conf.Load().ClaimLife)
	page, err := p.Rows.Due(end, scanPage)
	for err == nil && len(page) > 0 && ctx.Err() == nil {
		for _, d := range page {
			p.inheritOne(ctx, d.Queue)
		}
		page, err = p.Rows.DueAfter(page[len(page)-1], end, scanPage)
	}
	if err != nil {
		p.Log.Error("the schedule cannot be read; queues that were being pushed when this node was killed wait until their claims end", "error", err)
	}
}

// inheritOne makes a queue due at once if a session of this node left it claimed.
func (p *Pusher) inheritOne(ctx context.Context, name spool.QueueName) {
	q, ok, err := p.Rows.Queue(name)
	if err != nil || !ok || q.Claim == nil || q.Claim.Node != p.Self.Node {
		return // a session that is to push the queue reports a row that cannot be read
	}
	cctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = p.Spool.Finish(cctx, spool.Finish{Queue: name, Session: q.Claim.Session, Outcome: spool.OutcomeExpired, Began: q.Claim.Since,
		Cause: q.Claim.Cause, SeenTo: 1, Words: "the server was stopped at once, in the middle of a push"})
	if err != nil {
		p.Log.Warn("a claim of this node's earlier life could not be ended; its queue waits for the claim's own end", "queue", name, "error", err)
		return
	}
	p.Log.Info("a queue that was being pushed when this node was killed is tried again", "queue", name)
}
