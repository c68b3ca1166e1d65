package auditlog

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func text(s *string) string {
	if s == nil {
		return "<nil>"
	}
	return *s
}

func TestGenerate(t *testing.T) {
	mix := Mix{To: noon, NoIDEvery: 100}
	all := slices.Collect(Generate(20_000, 3, mix))
	if again := slices.Collect(Generate(20_000, 3, mix)); !reflect.DeepEqual(all, again) {
		t.Error("one seed gave two logs")
	}
	if other := slices.Collect(Generate(20_000, 4, mix)); reflect.DeepEqual(all, other) {
		t.Error("two seeds gave one log")
	}
	count := map[string]int{}
	ids := map[string]bool{}
	for i, row := range all {
		ids[row.RequestID] = true
		is := func(name string, yes bool) {
			if yes {
				count[name]++
			}
		}
		is("no id", row.RequestID == "")
		is("empty path", row.Path == "")
		is("no ttl", slices.Contains(row.Omit, "ttl"))
		is("no user", row.RBACUserID == nil)
		is("array", strings.HasPrefix(text(row.Payload), "["))
		is("text", strings.HasPrefix(text(row.Payload), "plain"))
		is("object", strings.HasPrefix(text(row.Payload), "{"))
		is("large", len(text(row.Payload)) == 300_000)
		is("unicode", strings.Contains(text(row.Payload), "東京"))
		is("unknown", row.Extra != nil)
		is("same second", i > 0 && row.RequestTimestamp == all[i-1].RequestTimestamp)
		is("not in order", i > 0 && row.RequestTimestamp < all[i-1].RequestTimestamp)
		is("out of range", row.RequestTimestamp < noon.Add(-29*24*time.Hour).Unix() || row.RequestTimestamp > noon.Unix())
		is("invalid", len(text(row.Payload)) > 100_000 && !jsontext.Value(*row.Payload).IsValid(anyBytes))
	}
	for _, name := range []string{"empty path", "no ttl", "no user", "array", "text", "object", "unicode", "unknown", "same second"} {
		if count[name] < 100 {
			t.Errorf("%s: %d rows", name, count[name])
		}
	}
	if count["large"] != 4 || count["no id"] != 200 || count["not in order"] != 0 || count["out of range"] != 0 || count["invalid"] != 0 {
		t.Errorf("counts = %v", count)
	}
	if len(ids) != 20_000-200+1 {
		t.Errorf("%d ids", len(ids))
	}
	for row := range Generate(2000, 1, Mix{To: noon, Plain: true}) {
		if row.Path == "" || row.Omit != nil || row.Extra != nil || row.RBACUserID == nil || len(text(row.Payload)) > 1000 {
			t.Fatalf("plain row %+v", row)
		}
	}
}
