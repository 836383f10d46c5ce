package simtest

import (
	"syscall"
	"time"
)

// clockIsWrong picks the worlds with a wrong clock: it makes the check of login
// windows weaker.
func clockIsWrong(seed uint64) bool { return seed%4 == 1 }

// vanishes is a sender who hangs up, or is not heard of again, in the middle.
func (c *town) vanishes() {
	l := c.w.Write(300+c.rng.IntN(5000), c.someone())
	stage := senderStages[c.rng.IntN(len(senderStages))]
	silent := time.Duration(0)
	if c.rng.IntN(2) == 0 {
		silent = c.between(time.Minute, 20*time.Minute)
	}
	c.w.fault("a sender vanishes at %s", stage)
	c.mail.Add(1)
	c.w.Go(func() {
		defer c.mail.Done()
		c.w.Vanish(l, stage, silent)
	})
}

// radius is an access server that repeats itself, and whose packets overtake each
// other: nothing of it may start a push of its own.
func (c *town) radius() {
	name := c.someone()
	addr := c.w.Server(name).addr
	var delays []time.Duration
	for range 1 + c.rng.IntN(3) {
		delays = append(delays, c.between(time.Millisecond, 10*time.Minute))
	}
	if c.rng.IntN(3) > 0 {
		c.w.fault("RADIUS repeats a packet")
		c.w.TryLogin(name, addr)
		c.w.Repeat(statusStart, name, c.w.account(name).session, addr, delays...)
		return
	}
	// The line was up for a moment: its Stop overtakes its Start.
	c.w.fault("RADIUS packets overtake each other")
	session := c.w.newSession()
	if c.w.radius(statusStop, name, session, addr) != nil {
		return // nobody has heard it: the Start would be news
	}
	c.w.Repeat(statusStart, name, session, addr, delays...)
}

func (c *town) accessRestarts() {
	c.w.fault("the access server restarts")
	c.w.tryAccessRestarts()
}

// brokenDisk lets the log's disk fail. The node stops by itself or goes on; in the
// end somebody cuts its power, and the disk is well again.
func (c *town) brokenDisk() {
	w := c.w
	if w.down() {
		return
	}
	for _, words := range []string{"the node must stop", "snapshot failed", "failed to commit logs", "raft", "could not be closed", "the rows end", "shutting down",
		"could not be written", "Snapshot", "snapshot"} {
		w.journal.excuse(words)
	}
	err := []error{syscall.EIO, syscall.ENOSPC}[c.rng.IntN(2)]
	w.fault("the disk fails: %v", err)
	w.BreakAfter(1+c.rng.IntN(40), err)
	l := w.life
	c.breaks = l.disk
	c.until(c.between(time.Minute, 20*time.Minute), func() {
		if w.life != l {
			return
		}
		if w.down() && !w.crashed() {
			w.fault("a node with a broken disk stops by itself")
		}
		w.die(l, w.sharePercent())
	})
}

// clock is a wall clock that leaps, and is put right later.
func (c *town) clock() {
	if !clockIsWrong(c.w.Seed) {
		return
	}
	by := c.between(-20*time.Hour, 20*time.Hour)
	if c.rng.IntN(3) == 0 {
		by = c.between(-10*time.Minute, 10*time.Minute)
	}
	direction := "forward"
	if by < 0 {
		direction = "back"
	}
	c.w.fault("the clock jumps %s", direction)
	c.w.ClockIsWrong(by)
	c.until(c.between(time.Minute, 3*time.Hour), func() {
		c.w.fault("the clock is put right")
		c.w.ClockIsWrong(0)
	})
}

// quiet ends what is wrong with the disk, as a start on it would fail.
func (c *town) quiet() {
	d := c.w.life.disk
	if c.breaks == d { // or the next node would find it broken, and not start
		d.fuse.Store(0)
	}
	if d.broken.Load() != nil {
		c.w.die(c.w.life, c.w.sharePercent())
	}
}

var senderStages = []string{atConnect, atHello, atMail, atRcpt, atData, atBody, atDot, atKept}
