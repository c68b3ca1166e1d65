package app_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
)

var (
	sqlColumn  = regexp.MustCompile(`eventData\.(\w+(?:\.\w+)*)`)
	sqlElement = regexp.MustCompile(`element_at\(eventData\.(\w+), '(\w+)'\)`)
	sqlChange  = regexp.MustCompile(`'\$\.(\w+)'`)
	codeBlock  = regexp.MustCompile("(?s)```(\\w*)\n(.*?)```")
	aChange    = regexp.MustCompile(`"changes":\[\{.*\}\]`)
)

// The queries of WHO-CHANGED.md name fields that events and their changes have, and the
// change that it shows is one that the relay makes.
func TestWhoChangedQueries(t *testing.T) {
	text, err := os.ReadFile("../../relay/WHO-CHANGED.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), "<!-- queries:begin -->")
	queries, _, _ := strings.Cut(rest, "<!-- queries:end -->")
	event, change := changedEvent(t)

	shown := aChange.FindString(strings.ReplaceAll(before, "\n ", ""))
	if made := aChange.FindString(event.text); shown != made {
		t.Errorf("the page shows\n%s, and the relay makes\n%s", shown, made)
	}
	sql, insights, checked := 0, 0, 0
	check := func(value any, path string) {
		t.Helper()
		if checked++; !hasField(value, strings.Split(path, ".")) {
			t.Errorf("there is no field %s in %s", path, event.text)
		}
	}
	for _, block := range codeBlock.FindAllStringSubmatch(queries, -1) {
		if block[1] == "sql" {
			sql++
			for _, m := range sqlColumn.FindAllStringSubmatch(block[2], -1) {
				check(event.fields, m[1])
			}
			for _, m := range sqlElement.FindAllStringSubmatch(block[2], -1) {
				check(event.fields, m[1]+"."+m[2])
			}
			for _, m := range sqlChange.FindAllStringSubmatch(block[2], -1) {
				check(change, m[1])
			}
			continue
		}
		insights++
		for _, name := range insightsName.FindAllString(insightsText.ReplaceAllString(block[2], ""), -1) {
			switch first, below, _ := strings.Cut(name, "."); {
			case strings.Contains(" fields jsonParse message as unnest into filter and in like display sort desc asc event change ", " "+name+" "):
			case first == "event":
				check(event.fields, below)
			case first == "change":
				check(change, below)
			default:
				check(event.fields, name)
			}
		}
	}
	if sql != 5 || insights != 5 || checked < 60 {
		t.Errorf("%d queries in SQL, %d for Insights, %d fields", sql, insights, checked)
	}
}

type made struct {
	text   string
	fields any
}

// changedEvent returns an event with a change, and that change.
func changedEvent(t *testing.T) (event made, change any) {
	t.Helper()
	c := changes.Change{Entity: "routes", Key: "5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001", Name: "orders", Operation: changes.Update, History: changes.Exact}
	c.From = []changes.Field{{Path: "/paths/0", Value: jsontext.Value(`"/orders"`)}}
	c.To = []changes.Field{{Path: "/paths/0", Value: jsontext.Value(`"/order"`)}}
	encode := cloudtrail.NewEncoder("https://kong.internal:8444", "123456789012", false)
	text := encode(nil, &audit.Entry{
		ID: "id", RequestID: "id", Timestamp: 1663013700, ClientIP: "127.0.0.1", Method: "PATCH", Path: "/routes/orders", Status: 200, RBACUserID: "u", RBACUserName: "n",
		Changes: changes.Event([]changes.Change{c}, false, 10_000),
	})
	event.text = string(text)
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	elements, _ := fields["responseElements"].(map[string]any)
	list, _ := elements["changes"].([]any)
	if len(list) != 1 {
		t.Fatalf("%s", text)
	}
	event.fields = fields
	return event, list[0]
}
