package smtpd

import (
	"github.com/prometheus/client_golang/prometheus"

	"bsmtpd/metric"
)

// Results of a connection, the values of a metric's label.
const (
	connServed      = "served"
	connBusy        = "too_many"
	connBusyAddress = "too_many_from_address"
	connEarly       = "early"
	connProxy       = "bad_proxy_header"
	connGone        = "gone_before_greeting"
	connPanic       = "panic"
)

type metrics struct {
	connections *prometheus.CounterVec
	refused     *prometheus.CounterVec
	messages    prometheus.Counter
	bytes       prometheus.Counter
	bounces     prometheus.Counter
	spilled     prometheus.Counter
	panics      prometheus.Counter
	tls         *prometheus.CounterVec
	accept      prometheus.Histogram
}

func newMetrics(r *metric.Registry, sessions, memory func() float64) *metrics {
	r.GaugeFunc("smtpd_sessions", "SMTP connections that are open now.", sessions)
	r.GaugeFunc("smtpd_body_memory_bytes", "Memory in use for messages that are coming in.", memory)
	return &metrics{
		connections: r.Counters("smtpd_connections_total", "SMTP connections by what became of them.", "result"),
		refused:     r.Counters("smtpd_refused_total", "Negative SMTP replies by reason and by the first digit of their code.", "reason", "class"),
		messages:    r.Counter("smtpd_messages_total", "Messages that were accepted."),
		bytes:       r.Counter("smtpd_message_bytes_total", "Bytes of the messages that were accepted."),
		bounces:     r.Counter("smtpd_partly_refused_total", "Messages accepted for some of their recipients; the others are owed a bounce."),
		spilled:     r.Counter("smtpd_spilled_total", "Messages that were too large to wait in memory and went through a temporary file."),
		panics:      r.Counter("smtpd_panics_total", "SMTP sessions that ended in a panic: each is a bug to report."),
		tls:         r.Counters("smtpd_tls_handshakes_total", "STARTTLS handshakes by result.", "result"),
		accept:      r.Seconds("smtpd_accept_seconds", "Time from the end of a message to the reply that it was stored or refused."),
	}
}

func (m *metrics) refusal(reason string, code int) {
	m.refused.WithLabelValues(reason, classes[code/100%len(classes)]).Inc()
}

var classes = [...]string{"0", "1", "2", "3", "4", "5"}
