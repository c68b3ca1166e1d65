package main

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// metrics is what /metrics shows.
type metrics struct {
	registry *prometheus.Registry

	entries  *prometheus.CounterVec
	pages    prometheus.Counter
	passes   *prometheus.CounterVec
	stages   *prometheus.HistogramVec
	triggers *prometheus.CounterVec
	answer   prometheus.Histogram
	missing  prometheus.Counter
	failing  prometheus.Gauge
	lease    prometheus.Gauge
	verified *prometheus.CounterVec

	mu        sync.Mutex
	newest    int64     // timestamp of the newest delivered entry
	completed time.Time // when the last complete pass ended
	oldest    time.Time // since when entries are known and not delivered; zero: none are
}

func newMetrics(b *bell, letters func() (dead, parked int)) *metrics {
	const ns = "kong_cloudtrail_relay"
	m := &metrics{registry: prometheus.NewRegistry(), completed: time.Now()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Name: name, Help: help}, f))
	}
	m.entries = counter("entries_total", "Entries by what became of them: read, new, delivered, dead, parked, own, repeated, ahead.", "outcome")
	m.pages = prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: "pages_total", Help: "Pages of the audit log that Kong answered."})
	m.passes = counter("passes_total", "Passes by kind and outcome.", "kind", "outcome")
	m.triggers = counter("triggers_total", "Triggers by path and outcome.", "path", "outcome")
	m.verified = counter("signatures_total", "Entries by the outcome of checking Kong's signature.", "outcome")
	m.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Name: "stage_seconds", Help: "Seconds that a stage took for a page or a batch.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"stage"})
	m.answer = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Name: "announced_to_accepted_seconds", Help: "Seconds from a trigger to the acceptance of an entry that it announced.",
		Buckets: prometheus.ExponentialBuckets(0.025, 2, 12)})
	m.missing = prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: "announced_missing_total", Help: "Announced ids that did not show up in the audit log within 30 s."})
	m.failing = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "passes_failed_in_a_row", Help: "Passes that failed since the last one that did not."})
	m.lease = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "pass_running", Help: "1 while this relay makes a pass."})
	m.registry.MustRegister(m.pages, m.stages, m.answer, m.missing, m.failing, m.lease, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge("announced_waiting", "Announced ids that are being looked for.", func() float64 { n, _ := b.counts(); return float64(n) })
	gauge("announced_missing", "Announced ids that are missing at the moment.", func() float64 { _, n := b.counts(); return float64(n) })
	gauge("dead_letters", "Entries that the destination refused for good.", func() float64 { n, _ := letters(); return float64(n) })
	gauge("parked_entries", "Entries whose retries are exhausted, tried again by each pass.", func() float64 { _, n := letters(); return float64(n) })
	gauge("newest_delivered_age_seconds", "Age of the newest delivered entry. Grows while nobody uses the Admin API.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.newest == 0 {
			return 0
		}
		return time.Since(time.Unix(m.newest, 0)).Seconds()
	})
	gauge("last_complete_pass_age_seconds", "Time since a pass read to the end and everything had an outcome.", func() float64 {
		return m.completeAge().Seconds()
	})
	gauge("oldest_undelivered_age_seconds", "Time since which entries are known and not delivered; 0 if there are none.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.oldest.IsZero() {
			return 0
		}
		return time.Since(m.oldest).Seconds()
	})
	return m
}

func (m *metrics) completeAge() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.completed)
}

// pass counts a pass that ended.
func (m *metrics) pass(s pipeline.Summary, err error) {
	outcome := "complete"
	if err != nil {
		outcome = "failed"
	}
	m.passes.WithLabelValues(string(s.Kind), outcome).Inc()
	m.pages.Add(float64(s.Pages))
	for name, n := range map[string]int{
		"read": s.Read, "new": s.New, "delivered": s.Delivered, "dead": s.Dead, "parked": s.Parked, "own": s.Own,
		"repeated": s.Repeated, "ahead": s.Ahead,
	} {
		m.entries.WithLabelValues(name).Add(float64(n))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.failing.Set(0)
		m.completed, m.oldest = time.Now(), time.Time{}
		return
	}
	m.failing.Inc()
	if s.Failed > 0 && m.oldest.IsZero() {
		m.oldest = time.Now()
	}
}

func (m *metrics) delivered(entries []audit.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entries {
		m.newest = max(m.newest, entries[i].Timestamp)
		if v := entries[i].Verification; v != "" {
			m.verified.WithLabelValues(string(v)).Inc()
		}
	}
}
