package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// quitWait is how long the answer to QUIT is waited for. Nothing depends on it.
const quitWait = 2 * time.Second

// pipe sends jobs over one connection, as far ahead of the answers as the server
// allows:
//
//   - with CHUNKING and PIPELINING whole messages follow each other without any
//     waiting, within a window;
//   - with PIPELINING alone the end of one message and the envelope of the next
//     travel together (RFC 2920 section 3.1): one round trip per message;
//   - otherwise each command waits for its answer.
//
// One goroutine writes (push), one reads and matches replies by the ledger. The
// reader never waits for the writer, so neither side's full buffers can stop the
// other.
type pipe struct {
	c     *conn
	ctx   context.Context
	body  func(*job) (bodyReader, error)
	done  func(*job, *conn) // takes each answered job, from either goroutine
	local func(*job, []spool.RecipientResult)
	skip  func(*job) // is told of a job that ended here, after its results

	changed chan struct{} // a reply was taken, or the connection was lost
	ended   chan struct{} // the reader has ended

	mu  sync.Mutex // guards what follows, and the answers in begun jobs
	led ledger
	win window
	err error // why the connection was lost

	sentBytes func(n int64)
	stopping  func() bool
}

// push sends jobs from in until it is closed and all are answered. It returns
// the jobs that got no answer, in order, and why; nil: all is well. redo are jobs
// that an earlier connection left.
func (p *pipe) push(redo []*job, in <-chan *job) (rest []*job, err error) {
	p.changed = make(chan struct{}, 1)
	p.ended = make(chan struct{})
	p.led.redo = redo
	p.win = newWindow(int64(p.c.cfg.WindowBytes))
	p.c.watch.set(p.c.cfg.CommandTimeout)
	go p.read()
	var j *job
	for err == nil {
		if j, err = p.next(in); j == nil || err != nil {
			break
		}
		err = p.send(j)
	}
	var u *unreadable
	switch {
	case err == nil:
		p.quit()
	case errors.As(err, &u):
		p.abandon(j, err)
	case p.ctx.Err() == nil:
		// The network took no more. The reader may still find the server's
		// last words, which say more than a broken pipe.
		p.c.watch.set(quitWait)
		<-p.ended
	default:
		p.lose(err)
	}
	p.c.close()
	<-p.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil && err != nil {
		err = p.err // the reader knows better than the writer why
	}
	return p.led.rest(), err
}

func (p *pipe) read() {
	defer close(p.ended)
	defer p.poke()
	defer func() {
		if r := recover(); r != nil {
			p.lose(&panicked{r})
		}
	}()
	for {
		a, err := p.c.read()
		if err != nil {
			p.lose(err)
			return
		}
		p.mu.Lock()
		if len(p.led.expects) == 1 && p.c.chatters() {
			p.mu.Unlock()
			p.lose(&nonsense{"the server sent more answers than it was asked for"})
			return
		}
		done, err := p.led.answered(a.Reply)
		if err == nil {
			p.expectSoon()
		}
		if done != nil {
			p.win.answered(time.Now(), done.msg.Size)
		}
		p.mu.Unlock()
		if err != nil {
			p.lose(err)
			return
		}
		if done != nil {
			p.done(done, p.c)
		}
		p.poke()
	}
}

// expectSoon sets the watch for the command whose answer is next.
func (p *pipe) expectSoon() {
	limit := p.c.cfg.CommandTimeout
	if len(p.led.expects) > 0 && p.led.expects[0].kind == expectFinal {
		limit = p.c.cfg.DataTimeout
	}
	p.c.watch.set(limit)
}

func (p *pipe) lose(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.c.raw.Close() // ends a write that the server does not take
}

func (p *pipe) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// await waits until ready, which is called with the mutex held, says so.
func (p *pipe) await(ready func() bool) error {
	for {
		p.mu.Lock()
		ok, err := ready(), p.err
		p.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		}
		if err := p.c.w.Flush(); err != nil {
			return p.c.explain(err)
		}
		select {
		case <-p.changed:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// abandon ends a connection in the middle of a job whose body cannot be read to its
// end: there is no other way to keep the server from taking what it got for the
// whole. Those before it are complete, so their answers are awaited first; without
// them they would be sent again.
func (p *pipe) abandon(j *job, why error) {
	p.await(func() bool { return len(p.led.order) == 0 || p.led.order[0] == j })
	p.lose(why)
}

func (p *pipe) idle() bool { return len(p.led.expects) == 0 }

// next is the job to send now; nil: there will be none, and all are answered.
func (p *pipe) next(in <-chan *job) (*job, error) {
	for {
		p.mu.Lock()
		err, sync, full := p.err, p.led.sync, p.full()
		var j *job
		stop := p.stopping()
		if stop {
			in = nil // what was read ahead is not begun
		}
		if err == nil && !sync && !full && len(p.led.redo) > 0 && !stop {
			j = p.led.redo[0]
			p.led.redo = p.led.redo[1:]
		}
		over := p.led.jobs == 0 && (stop || len(p.led.redo) == 0)
		p.mu.Unlock()
		switch {
		case err != nil || j != nil:
			return j, err
		case sync && !stop:
			if err := p.resync(); err != nil {
				return nil, err
			}
			continue
		case in == nil && over:
			return nil, nil
		}
		source := in
		if full {
			source = nil
		}
		select {
		case j, ok := <-source: // more is ready: it can share a segment
			if ok {
				return j, nil
			}
			in = nil
			continue
		default:
		}
		if err := p.c.w.Flush(); err != nil {
			return nil, p.c.explain(err)
		}
		select {
		case j, ok := <-source:
			if ok {
				return j, nil
			}
			in = nil
		case <-p.changed:
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
}

func (p *pipe) full() bool {
	return p.led.jobs >= p.c.cfg.WindowMessages || p.win.full(p.led.jobs, p.led.bytes)
}

// resync lets the server answer everything and brings it back to the state
// between two messages.
func (p *pipe) resync() error {
	if err := p.await(p.idle); err != nil {
		return err
	}
	p.mu.Lock()
	p.led.sync, p.led.dirty = false, false
	p.led.expect(expectRset, nil, 0)
	p.mu.Unlock()
	p.c.w.WriteString("RSET\r\n")
	return p.await(p.idle)
}

// send sends one job as the server allows.
func (p *pipe) send(j *job) error {
	if !p.prepare(j) {
		p.skip(j)
		return nil
	}
	r, err := p.body(j)
	if err != nil {
		p.spoil(j, err)
		p.skip(j)
		return nil
	}
	defer r.Close()
	e := &p.c.ext
	switch {
	case e.chunking && e.pipelining:
		return p.chunked(j, r)
	case e.pipelining:
		return p.grouped(j, r)
	}
	return p.stepwise(j, r)
}

// spoil defers a message whose body cannot be read before anything was said.
func (p *pipe) spoil(j *job, err error) {
	p.local(j, j.all(spool.Deferred, mail.Reply{Code: 451, Status: mail.Status{4, 3, 0},
		Text: printable("the message cannot be read from the spool: "+err.Error(), spool.MaxWordsBytes)}))
}

// envelope begins a job's transaction: RSET if need be, MAIL, the RCPTs. more
// notes further commands that follow without waiting.
func (p *pipe) envelope(j *job, more func()) {
	p.mu.Lock()
	j.reset()
	dirty := p.led.dirty
	if dirty {
		p.led.expect(expectRset, nil, 0)
	}
	p.led.begin(j)
	p.led.expectEnvelope(j)
	more()
	p.mu.Unlock()
	if dirty {
		p.c.w.WriteString("RSET\r\n")
	}
	for _, line := range j.commands(&p.c.ext) {
		p.c.w.WriteString(line)
		p.c.w.WriteString("\r\n")
	}
}

// leaving notes that the end of a job's body goes out now. Only from here on can
// the server's yes be true.
func (p *pipe) leaving(j *job) {
	p.mu.Lock()
	j.sent = true
	p.mu.Unlock()
}

// chunked sends a whole message without waiting for anything (RFC 3030).
func (p *pipe) chunked(j *job, r bodyReader) error {
	p.envelope(j, func() { p.led.expect(expectFinal, j, 0) })
	fmt.Fprintf(p.c.w, "BDAT %d LAST\r\n", j.msg.Size)
	return p.write(j, r, p.c.w)
}

func (p *pipe) write(j *job, r bodyReader, w interface{ Write([]byte) (int, error) }) error {
	if j.msg.Size == 0 {
		p.leaving(j)
		return nil
	}
	if j.small != nil && p.c.limiter == nil {
		p.leaving(j)
		_, err := w.Write(j.small)
		j.small = nil // if it is sent again it is read again
		p.sentBytes(j.msg.Size)
		if err != nil {
			return p.c.explain(err)
		}
		return nil
	}
	err := copyBody(p.ctx, w, r, j.msg.Size, p.c.limiter, func() { p.leaving(j) })
	p.sentBytes(j.msg.Size)
	if err != nil {
		return p.c.explain(err)
	}
	return nil
}

// grouped sends a message to a server with PIPELINING. The answer to DATA must be
// seen; what was sent before, the end of the message before it included, travels
// with it.
func (p *pipe) grouped(j *job, r bodyReader) error {
	p.envelope(j, func() { p.led.expect(expectData, j, 0) })
	p.c.w.WriteString("DATA\r\n")
	if err := p.await(func() bool { return j.data.Code != 0 }); err != nil || j.data.Code != 354 {
		return err
	}
	return p.data(j, r)
}

// data sends the body after a 354.
func (p *pipe) data(j *job, r bodyReader) error {
	p.mu.Lock()
	p.led.expect(expectFinal, j, 0)
	p.led.ended()
	p.expectSoon()
	none := j.accepted() == 0
	p.mu.Unlock()
	if none {
		// "If none of the RCPT commands were accepted and DATA was, the client
		// SMTP should send a single dot" (RFC 2920 section 3.1).
		p.leaving(j)
		_, err := p.c.w.WriteString(".\r\n")
		return err
	}
	if p.c.pix {
		return p.dataThroughPix(j, r)
	}
	s := &stuffer{w: p.c.w}
	if err := p.write(j, r, s); err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return p.c.explain(err)
	}
	return nil
}

func (p *pipe) dataThroughPix(j *job, r bodyReader) error {
	if err := p.c.w.Flush(); err != nil {
		return p.c.explain(err)
	}
	t := &tailer{w: pieces{p.c}}
	s := &stuffer{w: t}
	if err := p.write(j, r, s); err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return p.c.explain(err)
	}
	err := t.finish(func() error {
		select {
		case <-time.After(p.c.cfg.PixPause):
			return nil
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	})
	if err != nil {
		return p.c.explain(err)
	}
	return nil
}

// stepwise sends a message one command at a time.
func (p *pipe) stepwise(j *job, r bodyReader) error {
	p.mu.Lock()
	dirty := p.led.dirty
	p.mu.Unlock()
	if dirty {
		if err := p.resync(); err != nil {
			return err
		}
	}
	p.mu.Lock()
	j.reset()
	p.led.begin(j)
	p.mu.Unlock()
	for i, line := range j.commands(&p.c.ext) {
		kind, n := expectRcpt, i-1
		if i == 0 {
			kind, n = expectMail, 0
		}
		if err := p.step(kind, j, n, line); err != nil {
			return err
		}
		if i == 0 && !j.mail.Positive() {
			return p.finish(j)
		}
	}
	if j.accepted() == 0 {
		return p.finish(j)
	}
	if err := p.step(expectData, j, 0, "DATA"); err != nil || j.data.Code != 354 {
		return err
	}
	if err := p.data(j, r); err != nil {
		return err
	}
	return p.await(p.idle)
}

// step sends one command and waits for its answer.
func (p *pipe) step(kind expectKind, j *job, n int, line string) error {
	p.mu.Lock()
	p.led.expect(kind, j, n)
	p.mu.Unlock()
	p.c.w.WriteString(line)
	p.c.w.WriteString("\r\n")
	return p.await(p.idle)
}

// finish completes a job that ended before DATA.
func (p *pipe) finish(j *job) error {
	p.mu.Lock()
	done := p.led.complete(j)
	p.mu.Unlock()
	if done != nil {
		p.done(done, p.c)
	}
	return nil
}

// quit says goodbye. The answer is not waited for for long: all is settled.
func (p *pipe) quit() {
	p.mu.Lock()
	p.led.expect(expectQuit, nil, 0)
	p.mu.Unlock()
	p.c.w.WriteString("QUIT\r\n")
	p.c.watch.set(quitWait)
	if err := p.await(p.idle); err != nil {
		return // the server has gone first
	}
}

// panicked is a bug of ours that ended a session.
type panicked struct{ value any }

func (e *panicked) Error() string { return fmt.Sprintf("internal error: %v", e.value) }

// isLoss reports whether an error says that the connection was lost while mail
// was under way; otherwise we ended it ourselves.
func isLoss(err error) bool {
	return err != nil && !errors.Is(err, errStop) && !errors.Is(err, context.Canceled)
}

var errStop = errors.New("the session was asked to stop")
