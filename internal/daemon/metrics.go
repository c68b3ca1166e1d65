package daemon

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

	start     time.Time
	mu        sync.Mutex
	newest    int64     // timestamp of the newest delivered entry
	completed time.Time // when the last complete pass ended, of any relay; zero: not known
	oldest    int64     // timestamp of the oldest entry that is known and has no outcome; 0: none
}

func newMetrics(announced func() (waiting, missing int), undelivered func() (dead, deferred int)) *metrics {
	const ns = "kong_cloudtrail_relay"
	m := &metrics{registry: prometheus.NewRegistry(), start: time.Now()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Name: name, Help: help}, f))
	}
	m.entries = counter("entries_total", "Entries by what became of them: read, new, delivered, dead, deferred, own, repeated, ahead.", "outcome")
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
	gauge("announced_waiting", "Announced ids that are being looked for.", func() float64 { n, _ := announced(); return float64(n) })
	gauge("announced_missing", "Announced ids that are missing at the moment.", func() float64 { _, n := announced(); return float64(n) })
	gauge("dead_letters", "Entries that the destination rejected permanently.", func() float64 { n, _ := undelivered(); return float64(n) })
	gauge("deferred_entries", "Entries whose retries are exhausted, tried again by each pass.", func() float64 { _, n := undelivered(); return float64(n) })
	gauge("newest_delivered_age_seconds", "Age of the newest delivered entry. Grows while nobody uses the Admin API.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.newest == 0 {
			return 0
		}
		return time.Since(time.Unix(m.newest, 0)).Seconds()
	})
	gauge("last_complete_pass_age_seconds", "Time since a pass of any relay on this ledger read to the end and everything had an outcome; since the start of this one if there was none.", func() float64 {
		return m.completeAge().Seconds()
	})
	gauge("oldest_undelivered_age_seconds", "Age of the oldest entry that this relay has read and that is neither delivered, dead nor deferred; 0 if there is none.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.oldest == 0 {
			return 0
		}
		return max(0, time.Since(time.Unix(m.oldest, 0)).Seconds())
	})
	return m
}

func (m *metrics) completeAge() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.completed.IsZero() {
		return time.Since(m.start)
	}
	return max(0, time.Since(m.completed)) // Kong's clock may be ahead
}

// complete takes note of a pass that was complete.
func (m *metrics) complete(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.After(m.completed) {
		m.completed = at
	}
}

// waiting takes note of the oldest entry without an outcome; 0 if there is none.
func (m *metrics) waiting(oldest int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest = oldest
}

// standby takes note that another relay makes the passes, which has them in its
// own metrics.
func (m *metrics) standby() {
	m.failing.Set(0)
	m.waiting(0)
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
		"read": s.Read, "new": s.New, "delivered": s.Delivered, "dead": s.Dead, "deferred": s.Deferred, "own": s.Own,
		"repeated": s.Repeated, "ahead": s.Ahead,
	} {
		m.entries.WithLabelValues(name).Add(float64(n))
	}
	if err != nil {
		m.failing.Inc()
		return
	}
	if s.Beside {
		return // the reconcile says what became of everything
	}
	m.failing.Set(0)
	m.waiting(0)
	m.complete(time.Now())
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
