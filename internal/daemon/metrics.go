package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/expfmt"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

const namespace = "kong_cloudtrail_relay"

type metricInfo struct {
	Name   string // without the namespace
	Type   string // counter, gauge or histogram
	Labels []string
	Help   string
}

type metrics struct {
	registry *prometheus.Registry
	table    []metricInfo

	entries    *prometheus.CounterVec
	read       prometheus.Counter
	found      prometheus.Counter
	deferrals  prometheus.Counter
	repeated   prometheus.Counter
	ahead      prometheus.Counter
	pages      prometheus.Counter
	passes     *prometheus.CounterVec
	stages     *prometheus.HistogramVec
	triggers   *prometheus.CounterVec
	retries    *prometheus.CounterVec
	answer     prometheus.Observer
	missing    prometheus.Counter
	changes    *prometheus.CounterVec
	lateRows   prometheus.Counter
	failing    prometheus.Gauge
	verified   *prometheus.CounterVec
	mayForget  prometheus.Gauge
	retryCodes map[string]bool // label values of retries

	start     time.Time
	mu        sync.Mutex
	newest    int64     // timestamp of the newest delivered entry
	completed time.Time // when the last complete pass began, of any relay; zero: not known

	oldestPending atomic.Int64 // timestamp of the oldest entry that is known and has no outcome; 0: none
	count         atomic.Int64 // entries delivered since EMF was last written
	failures      atomic.Int64 // of passes, since then
}

// newMetrics returns the metrics of a server, from which some are read when they are
// collected.
func newMetrics(s *server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), start: time.Now(), retryCodes: map[string]bool{}}
	m.entries = m.counterVec("entries_total", "Entries that have got an outcome: delivered, dead (rejected permanently, or deferred for 24 hours) or own (own reads that were left out).", "outcome")
	m.read = m.counter("entries_read_total", "Entries that the audit log showed, including those that the ledger knew already.")
	m.found = m.counter("entries_new_total", "Entries that were not in the ledger.")
	m.deferrals = m.counter("entries_deferred_total", "Entries whose retries were exhausted. Each pass puts them again.")
	m.repeated = m.counter("entries_repeated_total", "Entries that were put again because an answer was lost, or because the ledger forgot them.")
	m.ahead = m.counter("entries_ahead_total", "Entries with a timestamp ahead of Kong's clock.")
	m.pages = m.counter("pages_total", "Pages of the audit log that Kong answered.")
	m.passes = m.counterVec("passes_total", "Passes by kind (tail, reconcile) and outcome (complete, failed).", "kind", "outcome")
	m.triggers = m.counterVec("triggers_total", "Triggers by path and outcome.", "path", "outcome")
	m.verified = m.counterVec("signatures_total", "Entries by the outcome of checking Kong's signature.", "outcome")
	m.retries = m.counterVec("put_retries_total", "Puts after which entries had to be put again, by the destination's code.", "code")
	m.missing = m.counter("announced_missing_total", fmt.Sprintf("Announced ids that did not show up in the audit log within %.0f s.", announce.MissingAfter.Seconds()))
	m.changes = m.counterVec("changes_total", "Changed entities that events tell of, by how much is known of the state before: exact, approximate, unavailable. Only with --objects.", "history")
	m.lateRows = m.counter("changes_late_total", "Changed entities that Kong showed after their event had gone, or whose request it lost. Only with --objects.")
	m.failing = m.gauge("passes_failed_in_a_row", "Passes that have failed since the last one that succeeded.")
	m.mayForget = m.gauge("ledger_may_forget", "1 if the settings of the ledger's server may make it forget what must be kept.")
	m.stages = m.histogram("stage_duration_seconds", "Time that a stage took: read and lookup for a page, put and record for each attempt with a batch, failed ones among them.",
		prometheus.ExponentialBuckets(0.001, 4, 8), "stage")
	m.answer = m.histogram("announced_to_accepted_seconds", "Time from a trigger to the acceptance of an entry that it announced.",
		prometheus.ExponentialBuckets(0.025, 2, 12)).WithLabelValues()
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.collected(prometheus.GaugeValue, "build_info", "1, with the versions of the relay and of Go.", []string{"version", "goversion"}, func(emit func(float64, ...string)) {
		emit(1, s.opts.Version, runtime.Version())
	})
	m.sampled(s)
	return m
}

// sampled registers what is read when the metrics are collected.
func (m *metrics) sampled(s *server) {
	number := func(name, help string, f func() int) { m.gaugeFunc(name, help, func() float64 { return float64(f()) }) }
	moment := func(name, help string, f func() time.Time) {
		m.gaugeFunc(name, help, func() float64 {
			if t := f(); !t.IsZero() {
				return float64(t.UnixMilli()) / 1000
			}
			return 0
		})
	}
	number("passes_running", "Passes that this relay makes at the moment.", func() int { return int(s.running.Load()) })
	number("announced_ids_waiting", "Announced ids that are being looked for.", func() int { n, _ := s.scheduler.Counts(); return n })
	number("announced_ids_missing", "Announced ids that are missing at the moment.", func() int { _, n := s.scheduler.Counts(); return n })
	number("dead_letters", "Entries that were rejected permanently, or deferred for 24 hours, and that nobody has retried or dropped.", func() int { return s.ledger.read().counts.Dead })
	number("deferred_entries", "Entries whose retries are exhausted. Each pass puts them first.", func() int { return s.ledger.read().counts.Deferred })
	moment("newest_delivered_timestamp_seconds", "Timestamp of the newest delivered entry; 0 if this relay has delivered none.", m.newestDelivered)
	moment("last_complete_pass_timestamp_seconds", "When the last complete pass of any relay on this ledger began; the start of this relay if none is known. A pass is complete if it read to the end and everything had an outcome.", m.lastComplete)
	moment("oldest_undelivered_timestamp_seconds", "Timestamp of the oldest entry that is known and has not been delivered, or since when Kong could not be read; 0 if there is neither.", s.oldestUndelivered)
	moment("recorded_timestamp_seconds", "Timestamp of the newest entry that Kong's audit log has shown; 0 if it has shown none.", s.recording.provenAt)
	m.gaugeFunc("kong_retention_seconds", "How long Kong keeps entries, by the newest one that it has shown; without one, the setting record-ttl.", func() float64 {
		return cmp.Or(s.recording.kept(), s.app.Settings.RecordTTL).Seconds()
	})
	m.collected(prometheus.GaugeValue, "dependency_up", "1 while a dependency works, 0 while it fails; absent while that is not known.", []string{"dependency"}, func(emit func(float64, ...string)) {
		for _, state := range s.health.States() {
			switch state.Status {
			case health.OK:
				emit(1, string(state.Dependency))
			case health.Failing:
				emit(0, string(state.Dependency))
			case health.Unknown:
			}
		}
	})
	moments := func(name, help, label string, read func() map[string]time.Time) {
		m.collected(prometheus.GaugeValue, name, help, []string{label}, func(emit func(float64, ...string)) {
			for of, at := range read() {
				emit(float64(at.Unix()), of)
			}
		})
	}
	moments("certificate_expiry_timestamp_seconds", "When the certificate expires that Kong or the ledger last showed, or that the relay shows to them.", "certificate", func() map[string]time.Time { return s.app.Certificates() })
	moments("secret_changed_timestamp_seconds", "When a secret was last changed: the time of its file, or of its version in Secrets Manager; absent if that is not known.", "secret", func() map[string]time.Time { return s.app.Settings.SecretsChanged() })
	m.collected(prometheus.CounterValue, "outages_total", "Outages of a dependency that have ended.", []string{"dependency"}, func(emit func(float64, ...string)) {
		for _, state := range s.health.States() {
			emit(float64(state.Outages), string(state.Dependency))
		}
	})
}

// describe adds a metric to the table, and returns its options.
func (m *metrics) describe(kind, name, help string, labels ...string) prometheus.Opts {
	m.table = append(m.table, metricInfo{Name: name, Type: kind, Labels: labels, Help: help})
	return prometheus.Opts{Namespace: namespace, Name: name, Help: help}
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	return promauto.With(m.registry).NewCounter(prometheus.CounterOpts(m.describe("counter", name, help)))
}

func (m *metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.With(m.registry).NewCounterVec(prometheus.CounterOpts(m.describe("counter", name, help, labels...)), labels)
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	return promauto.With(m.registry).NewGauge(prometheus.GaugeOpts(m.describe("gauge", name, help)))
}

func (m *metrics) gaugeFunc(name, help string, f func() float64) {
	promauto.With(m.registry).NewGaugeFunc(prometheus.GaugeOpts(m.describe("gauge", name, help)), f)
}

func (m *metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	o := m.describe("histogram", name, help, labels...)
	return promauto.With(m.registry).NewHistogramVec(prometheus.HistogramOpts{Namespace: o.Namespace, Name: o.Name, Help: o.Help, Buckets: buckets}, labels)
}

// collector implements [prometheus.Collector]: it is a metric whose values are read when it
// is collected.
type collector struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(emit func(value float64, labels ...string))
}

func (c collector) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c collector) Collect(to chan<- prometheus.Metric) {
	c.read(func(value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.desc, c.kind, value, labels...)
	})
}

func (m *metrics) collected(kind prometheus.ValueType, name, help string, labels []string, read func(emit func(float64, ...string))) {
	text := "gauge"
	if kind == prometheus.CounterValue {
		text = "counter"
	}
	o := m.describe(text, name, help, labels...)
	m.registry.MustRegister(collector{prometheus.NewDesc(prometheus.BuildFQName(o.Namespace, "", o.Name), o.Help, labels, nil), kind, read})
}

// metricsFormat is the text that every release of Prometheus reads.
var metricsFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

func (m *metrics) write(_ context.Context, w io.Writer) error {
	families, err := m.registry.Gather()
	if err != nil {
		return err
	}
	e := expfmt.NewEncoder(w, metricsFormat)
	for _, f := range families {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) newestDelivered() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return app.UnixTime(m.newest)
}

// lastComplete returns when the last complete pass began, or when this relay started.
func (m *metrics) lastComplete() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.completed.IsZero() {
		return m.start
	}
	return m.completed
}

func (m *metrics) complete(began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if began.After(m.completed) {
		m.completed = began
	}
}

// standby notes that another relay makes the passes, and counts them in its own metrics.
func (m *metrics) standby() {
	m.failing.Set(0)
	m.oldestPending.Store(0)
}

func (m *metrics) pass(s *pipeline.Summary, err error) {
	outcome := "complete"
	if err != nil {
		outcome = "failed"
	}
	m.passes.WithLabelValues(string(s.Kind), outcome).Inc()
	m.pages.Add(float64(s.Pages))
	m.read.Add(float64(s.Read))
	m.found.Add(float64(s.New))
	m.deferrals.Add(float64(s.Deferred))
	m.repeated.Add(float64(s.Repeated))
	m.ahead.Add(float64(s.Ahead))
	m.entries.WithLabelValues("dead").Add(float64(s.Dead))
	m.entries.WithLabelValues("own").Add(float64(s.Own))
	if err != nil {
		m.failing.Inc()
		m.failures.Add(1)
		return
	}
	if s.Beside {
		return // the reconcile says what became of everything
	}
	m.failing.Set(0)
	m.oldestPending.Store(0)
	m.complete(time.Now().Add(-time.Duration(s.Seconds * float64(time.Second))))
}

func (m *metrics) delivered(entries []audit.Entry) {
	m.entries.WithLabelValues("delivered").Add(float64(len(entries)))
	m.count.Add(int64(len(entries)))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entries {
		m.newest = max(m.newest, entries[i].Timestamp)
		if v := entries[i].Verification; v != "" {
			m.verified.WithLabelValues(string(v)).Inc()
		}
	}
}

var codePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// maxCodes bounds the values of a label that another service chooses.
const maxCodes = 50

func (m *metrics) retried(code string) {
	m.mu.Lock()
	switch {
	case code == "":
		code = "none"
	case m.retryCodes[code]:
	case len(m.retryCodes) < maxCodes && codePattern.MatchString(code):
		m.retryCodes[code] = true
	default:
		code = "other"
	}
	m.mu.Unlock()
	m.retries.WithLabelValues(code).Inc()
}
