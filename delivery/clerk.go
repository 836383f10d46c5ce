package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

const (
	reportBatch    = 100              // results that are reported without waiting for more
	reportMost     = 250              // in one report: what came while the one before it was on its way
	reportBytes    = 128 << 10        // likewise; the log bounds what one command may carry
	reportBacklog  = reportMost       // results that may wait; then the session waits
	reportPatience = time.Minute      // how long a report is tried for
	callTimeout    = 15 * time.Second // of one call
	retryFirst     = 50 * time.Millisecond
	retryMax       = 2 * time.Second
)

// clerk talks to the spool for one session: reports results in batches and in
// order, and keeps the claim alive. Results reach the clerk through a bounded
// channel, so a slow spool slows the session down.
type clerk struct {
	spool   Spool
	ctx     context.Context // ends with the server, not with the session
	queue   spool.QueueName
	node    string
	session uint64
	cause   spool.Cause
	cfg     *Config
	now     func() mail.Time
	metrics *metrics

	in    chan spool.Result
	done  chan struct{}
	until atomic.Int64 // mail.Time: the end of the claim
	stale atomic.Bool  // the claim is somebody else's
	lost  atomic.Bool  // results could not be recorded
	abort func(error)  // ends the session
}

// run works until in is closed and everything is reported.
func (k *clerk) run() {
	defer close(k.done)
	extend := time.NewTicker(k.cfg.ClaimLife / 3)
	defer extend.Stop()
	flush := time.NewTimer(time.Hour)
	flush.Stop()
	defer flush.Stop()
	batch, size := make([]spool.Result, 0, reportMost), 0
	for {
		select {
		case r, ok := <-k.in:
			if !ok {
				k.settle(batch)
				return
			}
			if batch = append(batch, r); len(batch) == 1 {
				flush.Reset(k.cfg.ReportEvery)
			}
			if size += resultBytes(&r); len(batch) < reportBatch && size < reportBytes {
				continue
			}
		case <-flush.C:
		case <-extend.C:
			k.extend()
			continue
		}
		flush.Stop()
		k.settle(k.more(batch, size))
		batch, size = batch[:0], 0
	}
}

// more adds the results that wait to a batch.
func (k *clerk) more(batch []spool.Result, size int) []spool.Result {
	for len(batch) < reportMost && size < reportBytes {
		select {
		case r, ok := <-k.in:
			if !ok {
				return batch
			}
			batch = append(batch, r)
			size += resultBytes(&r)
		default:
			return batch
		}
	}
	return batch
}

// resultBytes is about how much room a result takes in a command.
func resultBytes(r *spool.Result) int {
	n := 64 + len(r.Remote)
	for i := range r.To {
		n += 32 + len(r.To[i].Address) + len(r.To[i].Reply.Text)
	}
	return n
}

// settle reports results. What cannot be reported is lost to the record, not to
// the recipient: sent messages may then be sent again, which is counted.
func (k *clerk) settle(batch []spool.Result) {
	if len(batch) == 0 {
		return
	}
	if k.lost.Load() {
		k.giveUp(batch)
		return
	}
	k.metrics.batches.Observe(float64(len(batch)))
	var got spool.Settled
	err := k.retry(func(ctx context.Context) (err error) {
		got, err = k.spool.Settle(ctx, spool.Settle{Queue: k.queue, Session: k.session, Results: batch})
		return err
	})
	switch {
	case err != nil:
		k.lost.Store(true)
		k.giveUp(batch)
		k.abort(err)
	case got.Stale:
		k.stale.Store(true)
		k.abort(errStale)
	}
}

var errStale = mail.Fail(mail.Conflict, "the queue was given to another session")

func (k *clerk) giveUp(batch []spool.Result) {
	for _, r := range batch {
		for _, to := range r.To {
			if to.Fate == spool.Sent {
				k.metrics.possible.Inc()
				break
			}
		}
	}
}

// retry calls until it succeeds, fails for good, or patience ends.
func (k *clerk) retry(call func(context.Context) error) error {
	began, pause := time.Now(), retryFirst
	for {
		ctx, cancel := context.WithTimeout(k.ctx, callTimeout)
		err := call(ctx)
		cancel()
		if err == nil || !passing(err) || time.Since(began) > reportPatience {
			return err
		}
		if serr := host.Sleep(k.ctx, pause); serr != nil {
			return err
		}
		pause = min(2*pause, retryMax)
	}
}

// passing reports a failure that may pass.
func passing(err error) bool {
	switch mail.KindOf(err) {
	case mail.Unavailable, mail.Limit, mail.LowSpace:
		return true
	}
	return false
}

// extend keeps the claim. A failure is no reason to stop yet: the session begins
// no message after the claim's end.
func (k *clerk) extend() {
	ctx, cancel := context.WithTimeout(k.ctx, callTimeout)
	defer cancel()
	res, err := k.spool.Claim(ctx, spool.Claim{Queue: k.queue, Node: k.node, Session: k.session, Life: k.cfg.ClaimLife, Cause: k.cause})
	switch {
	case err != nil:
	case res.Denial == spool.Granted:
		k.until.Store(int64(res.Until))
	case res.Denial == spool.Taken:
		k.stale.Store(true)
		k.abort(errStale)
	}
}

// holds reports whether the claim is surely ours for a while.
func (k *clerk) holds() bool {
	return k.now().Add(k.cfg.ClaimLife/10) < mail.Time(k.until.Load())
}

// report hands a result over, and waits while too many are unreported.
func (k *clerk) report(r spool.Result) { k.in <- r }

// finish ends the session in the spool.
func (k *clerk) finish(f spool.Finish) (spool.Finished, error) {
	var got spool.Finished
	err := k.retry(func(ctx context.Context) (err error) {
		got, err = k.spool.Finish(ctx, f)
		return err
	})
	return got, err
}
