package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// metricsNamespace is where CloudWatch shows the relay's metrics. Alarms name it.
const metricsNamespace = "KongCloudTrailRelay"

// emfMetric is a metric of one value.
type emfMetric struct {
	name, unit string // a unit of CloudWatch
	value      float64
}

// writeEMF writes metrics as one line in CloudWatch's embedded metric format,
// which CloudWatch Logs turns into metrics. Their one dimension is the source.
func writeEMF(w io.Writer, now time.Time, source string, metrics []emfMetric) error {
	type definition struct {
		Name string `json:"Name"`
		Unit string `json:"Unit"`
	}
	line := map[string]any{"Source": source}
	definitions := make([]definition, len(metrics))
	for i, m := range metrics {
		definitions[i] = definition{m.name, m.unit}
		line[m.name] = m.value
	}
	line["_aws"] = map[string]any{
		"Timestamp": now.UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{
			"Namespace": metricsNamespace, "Dimensions": [][]string{{"Source"}}, "Metrics": definitions,
		}},
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encoding metrics: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	return nil
}

// watchedSink is a destination that notes the oldest entry it was last unable to
// deliver. It is safe for concurrent use.
type watchedSink struct {
	sink

	mu     sync.Mutex
	oldest int64 // Unix seconds; 0: none
}

// Put implements [pipeline.Sink].
func (s *watchedSink) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts, err := s.sink.Put(ctx, entries)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, v := range verdicts {
		if v.Status != audit.Retryable || i >= len(entries) {
			continue
		}
		if t := entries[i].Timestamp; s.oldest == 0 || t < s.oldest {
			s.oldest = t
		}
	}
	return verdicts, err
}

// unresolved returns the timestamp of the oldest entry without an outcome since
// it was last asked, or 0.
func (s *watchedSink) unresolved() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.oldest
	s.oldest = 0
	return t
}
