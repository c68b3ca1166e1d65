// Package emf writes the relay's metrics in CloudWatch's embedded metric format.
package emf

import (
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
)

// metricsNamespace is where CloudWatch shows the relay's metrics. Alarms name it.
const metricsNamespace = "KongCloudTrailRelay"

// Names of the metrics. Alarms name them.
const (
	LastCompletePassAge  = "LastCompletePassAge"
	OldestUndeliveredAge = "OldestUndeliveredAge"
	DeadLetters          = "DeadLetters"
	Deferred             = "Deferred"
	PassFailures         = "PassFailures"
	EntriesDelivered     = "EntriesDelivered"
	AnnouncedMissing     = "AnnouncedMissing"

	// With --objects: changed entities that events tell of, by how much is known of the
	// state before, and those that came after their event.
	ChangesExact       = "ChangesExact"
	ChangesApproximate = "ChangesApproximate"
	ChangesUnavailable = "ChangesUnavailable"
	ChangesLate        = "ChangesLate"
)

// Metric is a metric of one value.
type Metric struct {
	Name  string
	Unit  string  // Count or Seconds
	Value float64 `json:"-"` // a member of the line, under the name
}

// Count returns a metric that counts something.
func Count[T int | int64](name string, n T) Metric { return Metric{name, "Count", float64(n)} }

// Age returns a metric for the time since then; 0 for never.
func Age(name string, now, then time.Time) Metric {
	m := Metric{Name: name, Unit: "Seconds"}
	if !then.IsZero() {
		m.Value = max(0, now.Sub(then).Round(time.Millisecond).Seconds())
	}
	return m
}

// Write writes metrics as one line, which CloudWatch Logs turns into metrics. Their
// one dimension is the source.
func Write(w io.Writer, now time.Time, source string, metrics []Metric) error {
	line := map[string]any{"Source": source}
	for _, m := range metrics {
		line[m.Name] = m.Value
	}
	line["_aws"] = map[string]any{
		"Timestamp": now.UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{
			"Namespace": metricsNamespace, "Dimensions": [][]string{{"Source"}}, "Metrics": metrics,
		}},
	}
	text, err := json.Marshal(line, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding metrics: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	return nil
}
