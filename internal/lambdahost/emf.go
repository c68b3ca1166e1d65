package lambdahost

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
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
	text, err := json.Marshal(line, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding metrics: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	return nil
}

// unresolved notes the oldest entry that a destination was last unable to deliver.
// It is safe for concurrent use.
type unresolved struct {
	mu     sync.Mutex
	oldest int64 // Unix seconds; 0: none
}

// watch returns a sink that notes what it could not deliver.
func (u *unresolved) watch(s delivery.Destination) delivery.Destination { return watchedSink{s, u} }

type watchedSink struct {
	delivery.Destination
	unresolved *unresolved
}

// Put implements [delivery.Destination].
func (s watchedSink) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts, err := s.Destination.Put(ctx, entries)
	for i, v := range verdicts {
		if v.Status == audit.Retryable && i < len(entries) {
			s.unresolved.note(entries[i].Timestamp)
		}
	}
	return verdicts, err
}

func (u *unresolved) note(timestamp int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.oldest == 0 || timestamp < u.oldest {
		u.oldest = timestamp
	}
}

// take returns the timestamp of the oldest entry without an outcome since the last
// call, or 0.
func (u *unresolved) take() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.oldest
	u.oldest = 0
	return t
}
