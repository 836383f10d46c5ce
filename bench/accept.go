package main

import (
	"context"
	"time"
)

// acceptance is a scenario in which mail comes in and nothing goes out.
type acceptance struct {
	load
	most   int // messages in a round
	target target
}

func accept4k(ctx context.Context, b *bench) error {
	return b.accept(ctx, acceptance{load{b, 64, 4096}, 100_000, target{TimesPostfix: 5}}, "accept 4 KiB, 64 sessions", target{PartPostfix: 1. / 5})
}

func accept64k(ctx context.Context, b *bench) error {
	return b.accept(ctx, acceptance{load{b, 16, 64 << 10}, 20_000, target{TimesPostfix: 3}}, "accept 64 KiB, 16 sessions", target{})
}

func accept1m(ctx context.Context, b *bench) error {
	return b.accept(ctx, acceptance{load{b, 16, 1 << 20}, 1500, target{TimesPostfix: 1.5}}, "accept 1 MiB, 16 sessions", target{})
}

// length of a measured round; runs of less than two seconds scatter widely.
func (b *bench) length() time.Duration { return size(b, 5*time.Second, 500*time.Millisecond) }

// count is how many messages fill a round at a speed.
func (a acceptance) count(b *bench, perSecond float64) int {
	return max(2*a.sessions, min(a.most, int(perSecond*b.length().Seconds())))
}

func (b *bench) accept(ctx context.Context, a acceptance, name string, cpuTarget target) error {
	if err := needs(smtpSource); err != nil {
		return err
	}
	speed := figure{Name: name, Unit: "messages/s", Target: a.target}
	cpu := figure{Name: "CPU seconds per 1,000 of them", Unit: "s", Target: cpuTarget}
	err := b.turns(ctx, setup{hold: true}, func(ctx context.Context, srv server, round int) error {
		perSecond, err := a.warmUp(ctx, srv.addr(), size(b, 700*time.Millisecond, 200*time.Millisecond))
		if err != nil {
			return err
		}
		n := a.count(b, perSecond)
		profiled := b.profile(srv, round, b.length())
		before, err := srv.group().cpu()
		if err != nil {
			return err
		}
		took, err := a.bring(ctx, srv.addr(), n)
		if err != nil {
			return err
		}
		after, err := srv.group().cpu()
		profiled()
		speed.add(srv.name(), float64(n)/took.Seconds())
		cpu.add(srv.name(), (after-before).Seconds()/float64(n)*1000)
		return err
	})
	b.figures = append(b.figures, speed, cpu)
	return err
}

// memory256 looks at the memory of all processes while 256 sessions are at work.
func memory256(ctx context.Context, b *bench) error {
	if err := needs(smtpSource); err != nil {
		return err
	}
	a := acceptance{load{b, 256, 4096}, 100_000, target{}}
	f := figure{Name: "memory at 256 sessions, PSS of all processes", Unit: "MiB", Target: target{PartPostfix: 1. / 3}}
	err := b.turns(ctx, setup{hold: true}, func(ctx context.Context, srv server, _ int) error {
		perSecond, err := a.warmUp(ctx, srv.addr(), size(b, 700*time.Millisecond, 200*time.Millisecond))
		if err != nil {
			return err
		}
		most := watchMemory(srv.group(), 500*time.Millisecond)
		defer most()
		_, err = a.bring(ctx, srv.addr(), a.count(b, perSecond))
		f.add(srv.name(), mib(most().pss))
		return err
	})
	b.figures = append(b.figures, f)
	return err
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
