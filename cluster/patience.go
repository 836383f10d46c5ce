package cluster

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"bsmtpd/mail"
)

// errorPause is how long a failure of the file system is kept back from pebble,
// and the time between two tries of what must succeed.
const errorPause = 500 * time.Millisecond

// shortFor is how long after a failure for lack of room the node counts as short
// of it: pebble tries again after errorPause.
const shortFor = 4 * errorPause

// patience is what a node does where its disk has no room or the system no file
// descriptor: what others can wait for, waits. A log that cannot begin its next
// segment, and a database that cannot note its files, would have to be closed and
// opened again instead, which on a full disk fails as well.
//
// Nothing waits while the node is opened: whoever opens it is told at once. Nor in
// simulated time, which stands still while a mutex is waited for.
type patience struct {
	node *Node

	mu      sync.Mutex // guards the rest; held for a moment only
	may     bool       // something may wait: the node is open, and its time is real
	waiting int        // calls of until that wait
	last    time.Time  // of the last failure
	err     error      // it
}

// passes reports an error that goes away by itself or with an operator's help,
// and that leaves nothing half done.
func passes(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// until does what has to succeed again and again while it fails for such a reason.
func (p *patience) until(what string, do func() error) error {
	err := do()
	if !p.wait(err) {
		return err
	}
	began := time.Now()
	p.node.log.Error("the node waits for room on its disk, or for file descriptors; until then it takes no mail in and pushes none",
		"for", what, "error", err)
	for again := time.NewTicker(errorPause); ; {
		select {
		case <-p.node.stop:
		case <-p.node.failing:
		case <-again.C:
			if err = do(); passes(err) {
				p.note(err)
				continue
			}
			p.node.log.Info("the node has waited for room and goes on", "for", what, "waited", time.Since(began).Round(time.Millisecond))
		}
		again.Stop()
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
		return err
	}
}

// wait notes a failure and reports whether it is one to wait for.
func (p *patience) wait(err error) bool {
	if p == nil || !passes(err) {
		return false
	}
	p.note(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.may {
		p.waiting++
	}
	return p.may
}

// note remembers a failure for Short.
func (p *patience) note(err error) {
	if passes(err) {
		p.mu.Lock()
		p.last, p.err = time.Now(), err
		p.mu.Unlock()
	}
}

func (p *patience) allow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.may = !p.node.opts.Still
}

// Short is why the node cannot write now although its disk works: no room, or no
// file descriptor. nil: it can. It tells what has happened, not what will.
func (n *Node) Short() error {
	p := &n.patience
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == 0 && (p.err == nil || time.Since(p.last) > shortFor) {
		return nil
	}
	why := p.err
	if errno := syscall.Errno(0); errors.As(why, &errno) {
		why = errno // senders are told: without the names of our files
	}
	return mail.Fail(mail.LowSpace, fmt.Sprintf("the mail store cannot be written: %v", why))
}
