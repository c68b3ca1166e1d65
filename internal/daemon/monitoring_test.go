package daemon

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const monitoring = "../../relay/monitoring"

var metricInQuery = regexp.MustCompile(namespace + `_([a-z_]+)`)

func fileText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(monitoring, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Alerts and dashboard ask for metrics that there are.
func TestQueriesNameMetrics(t *testing.T) {
	served := map[string]bool{}
	for _, m := range newMetrics(&server{}).table {
		served[m.Name] = true
		if m.Type == "histogram" {
			served[m.Name+"_bucket"] = true
		}
	}
	for _, name := range []string{"alerts.yaml", "alerts_test.yaml", "dashboard.json"} {
		found := metricInQuery.FindAllStringSubmatch(fileText(t, name), -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", name, len(found))
		}
		for _, f := range found {
			if !served[f[1]] {
				t.Errorf("%s: there is no metric %s", name, f[0])
			}
		}
	}
}

// Each alert is tested, and has a section that says what to do.
func TestAlertsHaveTestsAndRunbook(t *testing.T) {
	rules, tests, runbook := fileText(t, "alerts.yaml"), fileText(t, "alerts_test.yaml")+fileText(t, "alerts_retention_test.yaml"), fileText(t, "README.md")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	if len(alerts) < 8 {
		t.Fatalf("%d alerts", len(alerts))
	}
	for _, a := range alerts {
		name := a[1]
		if !strings.Contains(tests, `"`+name+`"`) && !strings.Contains(tests, "alertname: "+name) {
			t.Errorf("%s is not tested", name)
		}
		if !slices.Contains(strings.Split(runbook, "\n"), "## "+name) || !strings.Contains(rules, "README.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s has no section in the runbook, or does not name it", name)
		}
	}
}
