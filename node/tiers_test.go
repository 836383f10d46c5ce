package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTiersEndOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		slow := func(name string) part {
			return part{name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				ended = append(ended, name)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := runTiers(ctx, slog.New(slog.DiscardHandler), time.Hour, tier{slow("in")}, tier{slow("out")}, tier{slow("api")}); err != nil {
			t.Error(err)
		}
		if !slices.Equal(ended, []string{"in", "out", "api"}) {
			t.Errorf("ended in the order %v", ended)
		}
	})
}

func TestAPartThatFailsEndsTheOthersAndIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := false
		err := runTiers(t.Context(), slog.New(slog.DiscardHandler), time.Hour,
			tier{{"front", func(ctx context.Context) error { <-ctx.Done(); other = true; return ctx.Err() }}},
			tier{{"delivery", func(context.Context) error { return errors.New("no room") }}})
		if err == nil || !strings.Contains(err.Error(), "delivery: no room") || !other {
			t.Errorf("error %v, the other part ended: %v", err, other)
		}
	})
}

func TestATierThatHangsIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		runTiers(ctx, slog.New(slog.DiscardHandler), time.Minute,
			tier{{"stuck", func(context.Context) error { <-free; return nil }}}, tier{{"quick", func(ctx context.Context) error { <-ctx.Done(); return nil }}})
		if took := time.Since(began); took != time.Minute {
			t.Errorf("waited %s, want 1m", took)
		}
		close(free)
	})
}
