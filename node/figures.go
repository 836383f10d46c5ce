package node

import (
	"context"
	"log/slog"
	"time"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"

	"github.com/prometheus/client_golang/prometheus"
)

// figuresEvery is how old the figures of the queues may be: they come from a
// reading of all queue rows, which a scrape should not wait for.
const figuresEvery = 15 * time.Second

// figures tells what the queues hold.
type figures struct {
	rows func() spool.Reader
	now  func() mail.Time
	log  *slog.Logger

	messages, bytes, queues *prometheus.GaugeVec
	state                   *prometheus.GaugeVec
	oldest, withoutNext     prometheus.Gauge
}

func newFigures(rows func() spool.Reader, now func() mail.Time, log *slog.Logger, reg *metric.Registry) *figures {
	return &figures{rows: rows, now: now, log: log,
		messages:    reg.Gauges("queue_messages", "Messages in queues, by kind: account (to be pushed), mailbox (to be collected), out (to the world).", "kind"),
		bytes:       reg.Gauges("queue_bytes", "Bytes of the messages in queues, by kind.", "kind"),
		queues:      reg.Gauges("queue_queues", "Queues that hold mail, by kind.", "kind"),
		state:       reg.Gauges("queue_state", "Queues that hold mail, by state: failing, held, active.", "state"),
		oldest:      reg.Gauge("queue_oldest_seconds", "Age of the oldest message that waits to be pushed; 0: none does."),
		withoutNext: reg.Gauge("queue_without_next", "Queues with mail and no next event. Must be 0; a sweep repairs them."),
	}
}

func (f *figures) run(ctx context.Context) error {
	for {
		f.look()
		if host.Sleep(ctx, figuresEvery) != nil {
			return nil
		}
	}
}

func (f *figures) look() {
	now := f.now()
	t, err := f.rows().Totals(now)
	if err != nil {
		f.log.Error("the queues cannot be counted", "error", err)
		return
	}
	for _, k := range []struct {
		kind string
		h    spool.Holding
	}{{"account", t.Account}, {"mailbox", t.Mailbox}, {"out", t.Out}} {
		f.messages.WithLabelValues(k.kind).Set(float64(k.h.Messages))
		f.bytes.WithLabelValues(k.kind).Set(float64(k.h.Bytes))
		f.queues.WithLabelValues(k.kind).Set(float64(k.h.Queues))
	}
	f.state.WithLabelValues("failing").Set(float64(t.Failing))
	f.state.WithLabelValues("held").Set(float64(t.Held))
	f.state.WithLabelValues("active").Set(float64(t.Active))
	f.withoutNext.Set(float64(t.WithoutNext))
	age := 0.0
	if t.Oldest != 0 {
		age = max(0, now.Sub(t.Oldest).Seconds())
	}
	f.oldest.Set(age)
}
