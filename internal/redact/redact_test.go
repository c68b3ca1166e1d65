package redact

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func afterRedaction(payload string, paths ...string) string {
	e := audit.Entry{Payload: payload, Path: "/services?key=kept"}
	New(paths)(&e)
	return e.Payload
}

func TestRedact(t *testing.T) {
	const gone = `"[redacted]"`
	for _, tc := range []struct {
		name, payload string
		paths         []string
		want          string
	}{
		{"top level", `{"a":"s","b":1}`, []string{"a"}, `{"a":` + gone + `,"b":1}`},
		{"nested", `{"a":{"b":{"c":"s","d":2}}}`, []string{"a.b.c"}, `{"a":{"b":{"c":` + gone + `,"d":2}}}`},
		{"not of another level", `{"b":"kept","a":{"b":"s"}}`, []string{"a.b"}, `{"b":"kept","a":{"b":` + gone + `}}`},
		{"an object whole", `{"a":{"b":"s"}}`, []string{"a"}, `{"a":` + gone + `}`},
		{"a list whole", `{"a":["s","s"]}`, []string{"a"}, `{"a":` + gone + `}`},
		{"number, true and null", `{"a":1,"b":true,"c":null}`, []string{"a", "b", "c"}, `{"a":` + gone + `,"b":` + gone + `,"c":` + gone + `}`},
		{"through a list", `{"a":[{"b":"s"},{"c":1},[{"b":"s"}]]}`, []string{"a.b"}, `{"a":[{"b":` + gone + `},{"c":1},[{"b":` + gone + `}]]}`},
		{"a list on top", `[{"a":"s"},{"a":"s"}]`, []string{"a"}, `[{"a":` + gone + `},{"a":` + gone + `}]`},
		{"any key", `{"x":{"k":"s"},"y":{"k":"s","l":2}}`, []string{"*.k"}, `{"x":{"k":` + gone + `},"y":{"k":` + gone + `,"l":2}}`},
		{"any key at the end", `{"a":{"x":1,"y":2}}`, []string{"a.*"}, `{"a":{"x":` + gone + `,"y":` + gone + `}}`},
		{"two paths, one the beginning of the other", `{"a":{"b":"s","c":"s"}}`, []string{"a.b", "a"}, `{"a":` + gone + `}`},
		{"the same key twice", `{"a":"s","a":"s"}`, []string{"a"}, `{"a":` + gone + `,"a":` + gone + `}`},
		{"an escaped key", `{"\u0061":"s"}`, []string{"a"}, `{"\u0061":` + gone + `}`},
		{"a key beyond ASCII", `{"clé":"s"}`, []string{"clé"}, `{"clé":` + gone + `}`},
		{"a value with quotes and braces", `{"a":"}\",{","b":"\\"}`, []string{"a"}, `{"a":` + gone + `,"b":"\\"}`},
		{"upper case is another key", `{"A":"kept"}`, []string{"a"}, `{"A":"kept"}`},
		{"no such path", `{ "a" : 1.50 }`, []string{"b.c"}, `{ "a" : 1.50 }`},
		{"the rest as it was", `{"a":"s","n":12345678901234567890.10,"u":"\u00e9"}`, []string{"a"}, `{"a":` + gone + `,"n":12345678901234567890.10,"u":"\u00e9"}`},
		{"a path into a text", `{"a":"text"}`, []string{"a.b"}, `{"a":"text"}`},
		{"empty", ``, []string{"a"}, ``},
		{"not JSON", `a=s&b=1`, []string{"a"}, `a=s&b=1`},
		{"cut JSON", `{"a":"s"`, []string{"a"}, `{"a":"s"`},
		{"a bare text", `"a"`, []string{"a"}, `"a"`},
		{"empty object", `{}`, []string{"a"}, `{}`},
		{"deep, and all right", strings.Repeat(`{"a":`, 90) + `{"b":"s"}` + strings.Repeat(`}`, 90), []string{strings.Repeat("a.", 90) + "b"},
			strings.Repeat(`{"a":`, 90) + `{"b":` + gone + `}` + strings.Repeat(`}`, 90)},
		{"brackets in a text", `{"t":"` + strings.Repeat(`[`, 500) + `\"","a":"s"}`, []string{"a"}, `{"t":"` + strings.Repeat(`[`, 500) + `\"","a":` + gone + `}`},
		{"too deep to look into", strings.Repeat(`[`, 5_000_000) + `{"a":"s"}` + strings.Repeat(`]`, 5_000_000), []string{"a"}, gone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := afterRedaction(tc.payload, tc.paths...); got != tc.want {
				t.Errorf("got  %.200s\nwant %.200s", got, tc.want)
			}
		})
	}
}

// FuzzRedact holds that what was JSON stays JSON, and that what a path names is gone.
func FuzzRedact(f *testing.F) {
	for _, seed := range []string{`{"a":"s"}`, `{"b":[{"a":{"c":1}}]}`, `[]`, `{"a":"s","a":{}}`, `{"\u0061":1}`, `x`, "{\"\xff\":1}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		got := afterRedaction(payload, "a", "b.*")
		if gjson.Valid(payload) && !gjson.Valid(got) {
			t.Fatalf("%q became %q", payload, got)
		}
		if !gjson.Valid(payload) && got != payload {
			t.Fatalf("%q is not JSON, and became %q", payload, got)
		}
		if result := gjson.Parse(got); gjson.Valid(got) && result.IsObject() {
			result.ForEach(func(key, value gjson.Result) bool {
				if key.Str == "a" && value.Str != redacted {
					t.Errorf("%q became %q", payload, got)
				}
				return true
			})
		}
		if again := afterRedaction(got, "a", "b.*"); again != got {
			t.Errorf("a second time: %q became %q", got, again)
		}
	})
}
