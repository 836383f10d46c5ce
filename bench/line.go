package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// drainOverLine is a drain over a customer's slow line: 1 Mbit/s, and a round
// trip of 200 ms. The figure is the part of the line that is in use once the
// drain has got going.
func drainOverLine(ctx context.Context, b *bench) error {
	if err := needs(smtpSource); err != nil {
		return err
	}
	chunking, pipelining := []string{"PIPELINING", "CHUNKING"}, []string{"PIPELINING"}
	for _, v := range []struct {
		extensions  []string
		connections int
		servers     string // those that have something to show
		target      target
	}{
		{chunking, 1, "postfix bsmtpd", target{AtLeast: 90}},
		{pipelining, 1, "postfix bsmtpd", target{AtLeast: 13}}, // one round trip per message
		{pipelining, 2, "postfix bsmtpd", target{}},
		{pipelining, 4, "bsmtpd", target{}},
		{pipelining, 20, "postfix bsmtpd", target{}},
	} {
		f := figure{
			Name: fmt.Sprintf("part of a line of 1 Mbit/s and 200 ms, %s, connections: %d", v.extensions[len(v.extensions)-1], v.connections),
			Unit: "%", Target: v.target,
		}
		for _, srv := range b.servers() {
			if !hasWord(v.servers, srv.name()) || b.quick && v.connections > 1 && srv.name() == "postfix" {
				continue
			}
			used, err := b.overLine(ctx, srv, v.connections, v.extensions)
			if err != nil {
				return fmt.Errorf("%s, %d connections: %w", srv.name(), v.connections, err)
			}
			f.add(srv.name(), used*100)
		}
		b.figures = append(b.figures, f)
	}
	return nil
}

// overLine gives the part of the line that a server uses.
func (b *bench) overLine(ctx context.Context, srv server, connections int, extensions []string) (used float64, err error) {
	near, err := freeAddr()
	if err != nil {
		return 0, err
	}
	far, err := freeAddr()
	if err != nil {
		return 0, err
	}
	settle, length := size(b, 5*time.Second, 2*time.Second), size(b, 20*time.Second, 3*time.Second)
	l := line{rate: 1e6 / 8, delay: 100 * time.Millisecond}
	err = b.turn(ctx, srv, setup{next: near, connections: connections}, func() error {
		// More than the line can carry.
		n := int(l.rate * (settle + length).Seconds() / 4096)
		if err := gather(ctx, srv, load{b, 16, 4096}, n); err != nil {
			return err
		}
		var got atomic.Int64
		k, err := startCustomers([]string{far}, func(arrival) { got.Add(1) }, extensions...)
		if err != nil {
			return err
		}
		defer k.stop()
		s, err := startShaper(near, far, l)
		if err != nil {
			return err
		}
		defer s.stop()
		if err := srv.flush(ctx); err != nil {
			return err
		}
		if err := until(ctx, 20*time.Millisecond, "the first message has come", func() (bool, error) { return got.Load() > 0, nil }); err != nil {
			return err
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return ctx.Err()
		}
		used, err = s.use(ctx, length)
		return err
	})
	return used, err
}
