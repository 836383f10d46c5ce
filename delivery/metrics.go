package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"bsmtpd/metric"
	"bsmtpd/spool"
)

type metrics struct {
	sessions  *prometheus.CounterVec
	results   *prometheus.CounterVec
	firstByte prometheus.Histogram
	connects  prometheus.Counter
	bytes     prometheus.Counter
	possible  prometheus.Counter
	refused   prometheus.Counter
	claims    *prometheus.CounterVec
	panics    prometheus.Counter
	waiting   prometheus.Gauge
	running   prometheus.Gauge
	overflow  prometheus.Counter
	batches   prometheus.Histogram
	repaired  prometheus.Counter
	sweeps    prometheus.Counter
	swept     prometheus.Counter
	expired   *prometheus.CounterVec
}

func newMetrics(r *metric.Registry) *metrics {
	return &metrics{
		sessions: r.Counters("delivery_sessions_total", "Push sessions that ended, by outcome (done, failed, lost, nothing) and cause.", "outcome", "cause"),
		results:  r.Counters("delivery_results_total", "Recipients answered for, by fate: sent, deferred or failed.", "fate"),
		firstByte: r.Seconds("delivery_login_first_byte_seconds",
			"Time from a login event to the standing connection to the customer's server."),
		connects: r.Counter("delivery_connections_total", "Connections to other mail servers that stood."),
		bytes:    r.Counter("delivery_body_bytes_total", "Bytes of message bodies sent, without dot stuffing."),
		possible: r.Counter("delivery_duplicates_possible_total",
			"Messages that may arrive twice: they were sent whole, and the connection broke before the answer, or the answer could not be recorded."),
		refused:  r.Counter("delivery_servers_refused_total", "Servers that could not be reached or would not talk to us."),
		claims:   r.Counters("delivery_claims_total", "Claims of a queue by answer: granted, taken, empty, held, mailbox or failed (not committed).", "answer"),
		panics:   r.Counter("delivery_panics_total", "Sessions that were ended by a bug. Should be 0."),
		waiting:  r.Gauge("delivery_waiting", "Queues on the planner's list."),
		running:  r.Gauge("delivery_running", "Push sessions at work."),
		overflow: r.Counter("delivery_list_full_total", "Queues that found the planner's list full and wait in the spool."),
		batches:  r.Sizes("delivery_report_messages", "Messages in one report to the spool."),
		repaired: r.Counter("delivery_repaired_total", "Queues with mail and no next event that a sweep repaired. Should be 0."),
		sweeps:   r.Counter("delivery_sweeps_total", "Full sweeps over all queues."),
		swept:    r.Counter("delivery_swept_total", "Queues that a sweep made due."),
		expired:  r.Counters("delivery_expired_total", "What time ended, by kind: messages (bounced for age), claims, bodies (staged and not used), trash, holds.", "kind"),
	}
}

func (m *metrics) fate(f spool.Fate) {
	switch f {
	case spool.Sent:
		m.results.WithLabelValues("sent").Inc()
	case spool.Deferred:
		m.results.WithLabelValues("deferred").Inc()
	case spool.Failed:
		m.results.WithLabelValues("failed").Inc()
	}
}

func denialName(d spool.Denial) string {
	switch d {
	case spool.Granted:
		return "granted"
	case spool.Taken:
		return "taken"
	case spool.Empty:
		return "empty"
	case spool.Held:
		return "held"
	}
	return "mailbox"
}
