package main

import (
	"context"
	"fmt"
	"time"
)

// through measures from the first connection of the load to the last message at
// the customer's server.
func through(ctx context.Context, b *bench) error {
	if err := needs(smtpSource, smtpSink); err != nil {
		return err
	}
	l := load{b, 64, 4096}
	counts := map[string]int{"postfix": size(b, 5_000, 300), "bsmtpd": size(b, 40_000, 2000)} // some seconds each
	speed := figure{Name: "accept and deliver 4 KiB, 64 sessions", Unit: "messages/s", Target: target{TimesPostfix: 5}}
	cpu := figure{Name: "CPU seconds per 1,000 of them", Unit: "s"}
	next, err := freeAddr()
	if err != nil {
		return err
	}
	err = b.turns(ctx, setup{next: next}, func(ctx context.Context, srv server, round int) error {
		s, err := startSink(ctx, next)
		if err != nil {
			return err
		}
		defer s.stop()
		warm := 500
		if _, err := l.bring(ctx, srv.addr(), warm); err != nil {
			return err
		}
		if err := s.wait(ctx, warm); err != nil {
			return err
		}
		n := counts[srv.name()]
		profiled := b.profile(srv, round, b.length())
		before, err := srv.group().cpu()
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := l.bring(ctx, srv.addr(), n); err != nil {
			return err
		}
		if err := s.wait(ctx, warm+n); err != nil {
			return err
		}
		_, _, last := s.got()
		if err := empty(ctx, srv); err != nil {
			return err
		}
		after, err := srv.group().cpu()
		profiled()
		speed.add(srv.name(), float64(n)/last.Sub(began).Seconds())
		cpu.add(srv.name(), (after-before).Seconds()/float64(n)*1000)
		return err
	})
	b.figures = append(b.figures, speed, cpu)
	return err
}

// empty waits until nothing is queued.
func empty(ctx context.Context, srv server) error {
	return until(ctx, 50*time.Millisecond, "the queue is empty", func() (bool, error) {
		n, err := srv.queued(ctx)
		return n == 0, err
	})
}

// drain measures how fast one customer gets what has gathered, once his server is
// there and delivery is asked for: "postqueue -f" of Postfix, the API of bsmtpd.
func drain(ctx context.Context, b *bench) error {
	if err := needs(smtpSource, smtpSink); err != nil {
		return err
	}
	n := size(b, 20_000, 1000)
	speed := figure{Name: fmt.Sprintf("drain %s queued, from the trigger", number(float64(n))), Unit: "messages/s", Target: target{TimesPostfix: 5}}
	first := figure{Name: "first message after the trigger", Unit: "ms", Target: target{AtMost: 20}}
	next, err := freeAddr()
	if err != nil {
		return err
	}
	err = b.turns(ctx, setup{next: next}, func(ctx context.Context, srv server, round int) error {
		if err := gather(ctx, srv, load{b, 16, 4096}, n); err != nil {
			return err
		}
		s, err := startSink(ctx, next)
		if err != nil {
			return err
		}
		defer s.stop()
		time.Sleep(2 * time.Second)
		profiled := b.profile(srv, round, 2*time.Second)
		began := time.Now()
		if err := srv.flush(ctx); err != nil {
			return err
		}
		if err := s.wait(ctx, n); err != nil {
			return err
		}
		_, one, last := s.got()
		profiled()
		speed.add(srv.name(), float64(n)/last.Sub(began).Seconds())
		first.add(srv.name(), one.Sub(began).Seconds()*1000)
		return empty(ctx, srv)
	})
	b.figures = append(b.figures, speed, first)
	return err
}

// gather queues n messages for a customer whose server is down.
func gather(ctx context.Context, srv server, l load, n int) error {
	if _, err := l.bring(ctx, srv.addr(), n); err != nil {
		return err
	}
	err := until(ctx, 200*time.Millisecond, "nothing is being delivered", func() (bool, error) { return srv.settled(ctx) })
	if err != nil {
		return err
	}
	if got, err := srv.queued(ctx); err != nil || got != n {
		return fmt.Errorf("%d messages are queued, not %d: %w", got, n, err)
	}
	return nil
}
