// Package metric holds the counters' registry and the mail log, in which one
// function stands for each event in a message's life.
package metric

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Namespace begins every metric's name.
const Namespace = "bsmtpd"

// Registry makes counters and keeps them for /metrics. One per node: a test runs
// several nodes in one process. The zero value is not usable; see New.
type Registry struct{ reg *prometheus.Registry }

// New makes an empty registry.
func New() *Registry { return &Registry{prometheus.NewRegistry()} }

// Gatherer gives the registry to whoever serves /metrics.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.reg }

// Register adds a collector of the caller's own making, such as Go's runtime.
func (r *Registry) Register(c prometheus.Collector) { r.reg.MustRegister(c) }

// Counter makes "bsmtpd_<name>"; name ends in _total.
func (r *Registry) Counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help})
	r.reg.MustRegister(c)
	return c
}

// Counters makes a counter with labels. Label values must come from a small,
// fixed set, never from outside.
func (r *Registry) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	r.reg.MustRegister(c)
	return c
}

// Gauge makes a value that goes up and down.
func (r *Registry) Gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help})
	r.reg.MustRegister(g)
	return g
}

// Gauges makes a gauge with labels; see Counters for their values.
func (r *Registry) Gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	r.reg.MustRegister(g)
	return g
}

// GaugeFunc makes a value that is computed when it is read.
func (r *Registry) GaugeFunc(name, help string, f func() float64) {
	r.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help}, f))
}

// Seconds makes a histogram of durations in seconds, 0.5 ms to 16 minutes.
func (r *Registry) Seconds(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: Namespace, Name: name, Help: help,
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 21)})
	r.reg.MustRegister(h)
	return h
}

// Sizes makes a histogram of counts, 1 to 65,536.
func (r *Registry) Sizes(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: Namespace, Name: name, Help: help,
		Buckets: prometheus.ExponentialBuckets(1, 2, 17)})
	r.reg.MustRegister(h)
	return h
}
