package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fill brings mail for many recipients, which smtp-source cannot: each message
// has one, and a connection has one message on its way.
type fill struct {
	addr        string
	connections int
	length      int                // of a message with its header, in bytes
	to          func(i int) string // the recipient of message i
	taken       atomic.Int64
}

// bring sends messages from up to below end; it stops early, with no error, when
// stopped is closed, and at the first message that is not taken.
func (f *fill) bring(ctx context.Context, from, end int, stopped <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	next.Store(int64(from))
	errs := make([]error, f.connections)
	var wg sync.WaitGroup
	for w := range f.connections {
		wg.Go(func() {
			if errs[w] = f.work(ctx, w, &next, end, stopped); errs[w] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// work is one connection.
func (f *fill) work(ctx context.Context, worker int, next *atomic.Int64, end int, stopped <-chan struct{}) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	r := bufio.NewReader(c)
	chance := rand.New(rand.NewPCG(uint64(f.length), uint64(worker)))
	if err := exchange(c, r, "", "220"); err != nil {
		return err
	}
	if err := exchange(c, r, "EHLO bench.example\r\n", "250"); err != nil {
		return err
	}
	for {
		select {
		case <-stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		i := int(next.Add(1)) - 1
		if i >= end {
			return exchange(c, r, "QUIT\r\n", "221")
		}
		envelope := "MAIL FROM:<" + sender + ">\r\nRCPT TO:<" + f.to(i) + ">\r\nDATA\r\n"
		if err := exchange(c, r, envelope, "250", "250", "354"); err != nil {
			return err
		}
		if err := exchange(c, r, message(chance, f.length)+".\r\n", "250"); err != nil {
			return err
		}
		f.taken.Add(1)
	}
}

// exchange says something and wants replies that begin so.
func exchange(c net.Conn, r *bufio.Reader, say string, want ...string) error {
	c.SetDeadline(time.Now().Add(time.Minute))
	if say != "" {
		if _, err := c.Write([]byte(say)); err != nil {
			return err
		}
	}
	for _, w := range want {
		got, err := reply(r)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(got, w) {
			return fmt.Errorf("the server says %q", got)
		}
	}
	return nil
}
