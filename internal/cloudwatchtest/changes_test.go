package cloudwatchtest

import (
	"strings"
	"testing"
)

// The page shows what a request changed, and leads back to the relay.
func TestPageShowsChanges(t *testing.T) {
	s := fixed(Options{})
	base := serve(t, s)
	s.LinkRelay("http://127.0.0.1:9090/")
	field := func(path string, value any) map[string]any { return map[string]any{"path": path, "value": value} }
	elements := map[string]any{"late": true, "changes": []any{
		map[string]any{"entity": "services", "key": "k", "name": "orders", "operation": "update", "history": "approximate",
			"from": []any{field("/path", "/a"), field("/updated_at", 1)}, "to": []any{field("/path", hostile), field("/updated_at", 2), field("/tags", []any{strings.Repeat("x", 500)})}},
		map[string]any{"entity": "plugins", "key": "p-1", "name": hostile, "operation": "delete", "history": "exact", "from": []any{field("/name", "session")}},
	}}
	put(t, s, sent{event("a", map[string]any{"responseElements": elements}), at(0)}, sent{event("b", map[string]any{"responseElements": map[string]any{"changes": "odd"}}), at(0)})
	_, body, _ := get(t, base+"/")
	for _, want := range []string{
		`update <b>services/orders</b> <span class="history">approximate</span>`, `path: <del>&#34;/a&#34;</del> → <ins>`, `tags: <i>none</i> → <ins>[&#34;xxx`,
		`delete <b>plugins/&lt;script&gt;`, `late: not all`, `<a href="http://127.0.0.1:9090/">the relay&#39;s page</a>`,
	} {
		if !strings.Contains(body, want) && !strings.Contains(body, strings.ReplaceAll(want, "&#39;", "'")) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"<script>alert", "updated_at", strings.Repeat("x", 100)} {
		if strings.Contains(body, not) {
			t.Errorf("the page shows %q", not)
		}
	}
}
