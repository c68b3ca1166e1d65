package daemon

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// readme names every metric, as metricsMarkdown writes them.
const readme = "../../relay/README.md"

var update = flag.Bool("update", false, "rewrite the table of relay/README.md to what the code says")

// metricsMarkdown is the README's table of metrics.
func metricsMarkdown() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range newMetrics(&server{}).table {
		labels := make([]string, len(m.Labels))
		for i, l := range m.Labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(labels, ", "), m.Help)
	}
	return b.String()
}

func TestReadmeListsTheMetrics(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		table := regexp.MustCompile(`(?m)^\| metric \| type .*\n(\|.*\n)+`)
		text = table.ReplaceAllLiteral(text, []byte(metricsMarkdown()))
		if err := os.WriteFile(readme, text, 0o600); err != nil { // which keeps the mode that it has
			t.Fatal(err)
		}
	}
	if !strings.Contains(string(text), metricsMarkdown()) {
		t.Errorf("relay/README.md lacks this table, which go test ./internal/daemon -run TestReadmeListsTheMetrics -update writes:\n%s", metricsMarkdown())
	}
}

// Names and types are what Prometheus' conventions ask for.
func TestNamesOfMetrics(t *testing.T) {
	for _, m := range newMetrics(&server{}).table {
		if counter := strings.HasSuffix(m.Name, "_total"); counter != (m.Type == "counter") {
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
		if strings.Contains(m.Name, "_age") || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: %s", m.Name, m.Help)
		}
	}
}
