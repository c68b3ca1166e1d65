package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// promtool returns the path of Prometheus' tool, or nothing.
func promtool() string {
	path, err := exec.LookPath("promtool")
	if err != nil {
		return ""
	}
	return path
}

// fires expects that alerts fire if metrics stay as they were scraped.
func fires(t *testing.T, scraped string, alerts ...string) {
	t.Helper()
	const minutes = 60
	now := time.Now()
	var series strings.Builder
	for line := range strings.Lines(scraped) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, "kong_cloudtrail_relay_") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		// promtool's time begins at 0, and what was so many seconds ago must stay so.
		if strings.Contains(name, "_timestamp_seconds") && n > 0 {
			n += minutes*60 - float64(now.Unix())
		}
		fmt.Fprintf(&series, "      - series: '%s'\n        values: '%sx%d'\n", name, strconv.FormatFloat(n, 'f', -1, 64), minutes)
	}
	var tests strings.Builder
	for _, a := range alerts {
		fmt.Fprintf(&tests, "      - expr: count(ALERTS{alertname=%q,alertstate=\"firing\"}) > bool 0\n        eval_time: %dm\n"+
			"        exp_samples: [{labels: '{}', value: 1}]\n", a, minutes)
	}
	rules, err := filepath.Abs("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	text := fmt.Sprintf("rule_files: [%q]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n%s    promql_expr_test:\n%s", rules, series.String(), tests.String())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool(), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v do not all fire: %v\n%s", alerts, err, bytes.TrimSpace(out))
	}
}
