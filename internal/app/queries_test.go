package app_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
)

var (
	insightsText  = regexp.MustCompile(`"[^"]*"|(?m)^#.*$`)
	insightsAlias = regexp.MustCompile(`\bas (\w+)`)
	insightsName  = regexp.MustCompile(`[A-Za-z_]\w*(\.\w+)*`)
)

// insightsWords are of the query language, not of the event.
var insightsWords = []string{"fields", "filter", "sort", "desc", "asc", "stats", "count", "latest", "ispresent", "as", "by"}

// The queries for CloudWatch Logs Insights name fields that events have.
func TestInsightsQueries(t *testing.T) {
	text, err := os.ReadFile("../../relay/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "<!-- insights:begin -->")
	queries, _, _ := strings.Cut(rest, "<!-- insights:end -->")

	encode := cloudtrail.NewEncoder("https://kong.internal:8444", "123456789012", true)
	event := encode(nil, &audit.Entry{
		ID: "id", RequestID: "id", Timestamp: 1663013700, ClientIP: "127.0.0.1", Method: "POST", Path: "/services?size=100",
		Status: 409, TTL: 1, Workspace: "w", Payload: `{"name":"orders"}`, RBACUserID: "u",
	})
	var fields any
	if err := json.Unmarshal(event, &fields); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for query := range strings.SplitSeq(queries, "```") {
		query = insightsText.ReplaceAllString(query, "")
		known := slices.Clone(insightsWords)
		for _, alias := range insightsAlias.FindAllStringSubmatch(query, -1) {
			known = append(known, alias[1])
		}
		for _, name := range insightsName.FindAllString(query, -1) {
			if slices.Contains(known, name) {
				continue
			}
			checked++
			if !hasField(fields, strings.Split(name, ".")) {
				t.Errorf("events have no field %s: %s", name, event)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d fields found in the queries", checked)
	}
}

func hasField(value any, path []string) bool {
	for _, step := range path {
		object, _ := value.(map[string]any)
		next, ok := object[step]
		if !ok {
			return false
		}
		value = next
	}
	return true
}
