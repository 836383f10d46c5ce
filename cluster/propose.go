package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
)

// Bounds of what waits to be agreed on.
const (
	maxProposals     = 8192     // commands
	maxProposalBytes = 64 << 20 // and their bytes together
	maxInFlight      = 8        // entries between the proposer and Raft
	maxStaging       = 16       // large bodies on their way at one time
)

// proposal is one command on its way into the log.
type proposal struct {
	command
	done chan Reply  // 1 deep: whoever gave up waiting does not block the rest
	gone atomic.Bool // nobody waits for it any more
	room int64       // of proposer.room; it is held until the command is in an entry
	free atomic.Bool // and was given back
}

// proposer gathers commands into entries. While maxInFlight entries are on their
// way, those that come meanwhile share the next: the busier the node, the more
// commands an entry carries, and the more an fsync is worth.
type proposer struct {
	node    *Node
	in      chan *proposal
	room    *semaphore.Weighted
	staging chan struct{} // slots of maxStaging
	waiting chan inFlight
	stop    chan struct{}
	wg      sync.WaitGroup
}

type inFlight struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

func newProposer(n *Node) *proposer {
	p := &proposer{node: n, in: make(chan *proposal, maxProposals), room: semaphore.NewWeighted(maxProposalBytes), staging: make(chan struct{}, maxStaging),
		waiting: make(chan inFlight, maxInFlight), stop: make(chan struct{})}
	p.wg.Add(2)
	go p.gather()
	go p.deliver()
	return p
}

func (p *proposer) close() {
	close(p.stop)
	p.wg.Wait()
}

var errStopping = mail.Fail(mail.Unavailable, "the node is shutting down")

// propose brings a command into the log and waits until it was applied. An error
// of Kind Unavailable leaves open whether it was.
func (p *proposer) propose(ctx context.Context, c command) (any, error) {
	size := int64(c.size())
	if !p.room.TryAcquire(size) {
		ctx, cancel := context.WithTimeout(ctx, p.node.opts.ApplyTimeout)
		defer cancel()
		if err := p.room.Acquire(ctx, size); err != nil {
			return nil, mail.Fail(mail.Limit, "too many changes are waiting to be committed; try again later")
		}
	}
	pr := &proposal{command: c, done: make(chan Reply, 1), room: size}
	select {
	case p.in <- pr:
	default:
		p.leave(pr)
		return nil, mail.Fail(mail.Limit, "too many changes are waiting to be committed; try again later")
	}
	timeout := time.NewTimer(p.node.opts.ApplyTimeout)
	defer timeout.Stop()
	select {
	case r := <-pr.done:
		return r.Value, r.Err
	case <-ctx.Done():
		pr.gone.Store(true)
		return nil, &mail.Error{Kind: mail.Unavailable, Err: fmt.Errorf("not committed in time, it may still be: %w", ctx.Err())}
	case <-timeout.C:
		pr.gone.Store(true)
		return nil, mail.Fail(mail.Unavailable, fmt.Sprintf("not committed within %s, it may still be", p.node.opts.ApplyTimeout))
	case <-p.stop:
		p.leave(pr) // others wait for the room, and must hear of the end too
		return nil, errStopping
	}
}

// leave gives back the room of a command that is in an entry, or will be in none.
func (p *proposer) leave(pr *proposal) {
	if !pr.free.Swap(true) {
		p.room.Release(pr.room)
	}
}

func (p *proposer) gather() {
	defer p.wg.Done()
	defer close(p.waiting)
	var carry *proposal
	for {
		first := carry
		carry = nil
		if first == nil {
			select {
			case first = <-p.in:
			case <-p.stop:
				return
			}
		}
		if p.dropped(first) {
			continue
		}
		batch := []*proposal{first}
		size := entryHeader + first.size()
	more:
		for size < targetEntryBytes && len(batch) < maxEntryCommands {
			select {
			case next := <-p.in:
				if p.dropped(next) {
					continue
				}
				if size+next.size() > MaxEntryBytes {
					carry = next
					break more
				}
				batch = append(batch, next)
				size += next.size()
			default:
				break more
			}
		}
		entry := appendEntryHeader(make([]byte, 0, size), p.node.Now())
		for _, pr := range batch {
			entry = appendCommand(entry, &pr.command)
			pr.fields, pr.beside = nil, nil // the caller may use his memory again
			p.leave(pr)
		}
		p.node.metrics.entryCommands.Observe(float64(len(batch)))
		select {
		case p.waiting <- inFlight{p.node.raft.Apply(entry, p.node.opts.ApplyTimeout), batch}:
		case <-p.stop:
			return
		}
	}
}

// dropped reports a command whose proposer was told that it was not committed in
// time, and leaves it out: a sender who was told so sends his mail again, and it
// would arrive twice.
func (p *proposer) dropped(pr *proposal) bool {
	if !pr.gone.Load() {
		return false
	}
	p.leave(pr)
	return true
}

func (p *proposer) deliver() {
	defer p.wg.Done()
	for f := range p.waiting {
		err := f.future.Error()
		var replies []Reply
		if err == nil {
			replies, _ = f.future.Response().([]Reply)
			if len(replies) != len(f.proposals) {
				err = errors.New("the entry was not applied")
			}
		}
		for i, pr := range f.proposals {
			if err != nil {
				pr.done <- Reply{Err: &mail.Error{Kind: mail.Unavailable, Err: fmt.Errorf("not committed: %w", err)}}
			} else {
				pr.done <- replies[i]
			}
		}
	}
}

// propose is the typed door: C is the command, R its reply.
func propose[R any](ctx context.Context, n *Node, kind Kind, c any, beside []byte) (R, error) {
	var zero R
	if err := n.Failed(); err != nil {
		return zero, mail.Fail(mail.Unavailable, "the spool has failed: "+err.Error())
	}
	cmd := command{kind: kind, version: rules[kind].version, fields: kv.Encode(c), beside: beside}
	if err := cmd.checkFits(c); err != nil {
		return zero, err
	}
	v, err := n.proposer.propose(ctx, cmd)
	if err != nil {
		return zero, err
	}
	r, ok := v.(R)
	if !ok {
		return zero, fmt.Errorf("cluster: command kind %d was answered with a %T", kind, v)
	}
	return r, nil
}

// chunkPool keeps memory for bodies on their way into an entry. It is given back
// only when a command was answered: then it has been copied into its entry.
type chunkPool struct{ small, large sync.Pool }

const smallChunk = 16 << 10

func (p *chunkPool) get(n int) *[]byte {
	pool, size := &p.small, smallChunk
	if n > smallChunk {
		pool, size = &p.large, spool.ChunkBytes
	}
	b, _ := pool.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
		*b = make([]byte, size)
	}
	*b = (*b)[:n]
	return b
}

func (p *chunkPool) put(b *[]byte) {
	if cap(*b) > smallChunk {
		p.large.Put(b)
	} else {
		p.small.Put(b)
	}
}

// Enqueue keeps a message whose body is read from body, exactly m.Size bytes. It
// returns after the message was committed and applied. A large body is staged in
// chunks first.
func (n *Node) Enqueue(ctx context.Context, m spool.Enqueue, body io.Reader) (spool.Enqueued, error) {
	m.Staged = 0
	if m.Size <= spool.ChunkBytes {
		whole := n.chunks.get(int(m.Size))
		if _, err := io.ReadFull(body, *whole); err != nil {
			return spool.Enqueued{}, fmt.Errorf("read the message: %w", err)
		}
		kept, err := propose[spool.Enqueued](ctx, n, kindEnqueue, m, *whole)
		if err == nil {
			n.chunks.put(whole)
		}
		return kept, err
	}
	staged, err := n.stage(ctx, m.Size, body)
	if err != nil {
		return spool.Enqueued{}, err
	}
	m.Staged = staged
	return propose[spool.Enqueued](ctx, n, kindEnqueue, m, nil)
}

// stage brings a body into the log, one chunk after the other. Bodies take turns:
// hundreds at the same time would all be too late, and none of them be stored.
func (n *Node) stage(ctx context.Context, size int64, body io.Reader) (spool.BodyID, error) {
	select {
	case n.proposer.staging <- struct{}{}:
		defer func() { <-n.proposer.staging }()
	case <-ctx.Done():
		return 0, mail.Fail(mail.Limit, "too many large messages are waiting to be stored; try again later")
	}
	var id spool.BodyID
	for number := 0; size > 0; number++ {
		chunk := n.chunks.get(int(min(size, spool.ChunkBytes)))
		if _, err := io.ReadFull(body, *chunk); err != nil {
			return 0, fmt.Errorf("read the message: %w", err)
		}
		size -= int64(len(*chunk))
		s, err := propose[spool.Staged](ctx, n, kindStage, spool.Stage{Body: id, N: number}, *chunk)
		if err != nil {
			return 0, err
		}
		n.chunks.put(chunk)
		id = s.Body
	}
	return id, nil
}
