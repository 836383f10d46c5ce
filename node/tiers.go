package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// tier is parts that begin and end together.
type tier []part

// runTiers runs all tiers until ctx ends or a part fails, and then ends them one
// after the other, the first tier first: mail stops coming in before it stops
// going out, and what answers questions stops last. A tier that does not end
// within patience is left behind and named.
func runTiers(ctx context.Context, log *slog.Logger, patience time.Duration, tiers ...tier) error {
	failed := make(chan error, 1)
	ends := make([]func(), len(tiers))
	for i, t := range tiers {
		tctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var wg sync.WaitGroup
		for _, p := range t {
			wg.Go(func() {
				if err := p.run(tctx); err != nil && tctx.Err() == nil {
					select {
					case failed <- fmt.Errorf("%s: %w", p.name, err):
					default: // another one failed first
					}
				}
			})
		}
		ends[i] = func() {
			cancel()
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			late := time.NewTimer(patience)
			defer late.Stop()
			select {
			case <-done:
			case <-late.C:
				log.Error("some parts do not end and are left behind", "tier", i, "waited", patience)
			}
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	log.Info("stopping: sessions may finish", "patience", patience)
	for _, end := range ends {
		end()
	}
	return err
}
