package redact

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func redactPayload(payload string, paths ...string) audit.Entry {
	e := audit.Entry{Payload: payload, Path: "/services?key=kept"}
	New(paths)(&e)
	return e
}

func TestPayload(t *testing.T) {
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
		{"an escaped key", `{"\u0061":"s"}`, []string{"a"}, `{"\u0061":` + gone + `}`},
		{"a key beyond ASCII", `{"clé":"s"}`, []string{"clé"}, `{"clé":` + gone + `}`},
		{"a key with dots", `{"config.api_key":"s","config[api_key]":"s","a":1}`, []string{"config.api_key"}, `{"config.api_key":` + gone + `,"config[api_key]":` + gone + `,"a":1}`},
		{"a key with dots, below", `{"config.redis":{"password":"s"}}`, []string{"config.redis.password"}, `{"config.redis":{"password":` + gone + `}}`},
		{"a key with a position", `{"config.hosts[1].key":"s"}`, []string{"config.hosts.key"}, `{"config.hosts[1].key":` + gone + `}`},
		{"a key below a path", `{"config.api_key":"s"}`, []string{"config"}, `{"config.api_key":` + gone + `}`},
		{"a value with quotes and braces", `{"a":"}\",{","b":"\\"}`, []string{"a"}, `{"a":` + gone + `,"b":"\\"}`},
		{"upper case is another key", `{"A":"kept"}`, []string{"a"}, `{"A":"kept"}`},
		{"no such path", `{ "a" : 1.50 }`, []string{"b.c"}, `{ "a" : 1.50 }`},
		{"the rest as it was", `{"a":"s","n":12345678901234567890.10,"u":"\u00e9"}`, []string{"a"}, `{"a":` + gone + `,"n":12345678901234567890.10,"u":"\u00e9"}`},
		{"a path into a text", `{"a":"text"}`, []string{"a.b"}, `{"a":"text"}`},
		{"a path into a text that names it", `{"a":"b=s&c=1"}`, []string{"a.b"}, `{"a":` + gone + `}`},
		{"a vault reference stays", `{"a":"{vault://env/b}","h":"[::1]:80"}`, []string{"a.key"}, `{"a":"{vault://env/b}","h":"[::1]:80"}`},
		{"JSON in a string", `{"a":"{\"b\":\"s\",\"c\":1}"}`, []string{"a.b"}, `{"a":"{\"b\":\"[redacted]\",\"c\":1}"}`},
		{"JSON in a string, from its root", `{"x":"{\"a\":{\"b\":\"s\"}}"}`, []string{"a.b"}, `{"x":"{\"a\":{\"b\":\"[redacted]\"}}"}`},
		{"JSON in a string in a string", `{"x":"[\"{\\\"a\\\":\\\"s\\\"}\"]"}`, []string{"a"}, `{"x":"[\"{\\\"a\\\":\\\"[redacted]\\\"}\"]"}`},
		{"nearly JSON in a string", `{"x":"{'a':'s'}"}`, []string{"z"}, `{"x":` + gone + `}`},
		{"empty", ``, []string{"a"}, ``},
		{"empty object", `{}`, []string{"a"}, `{}`},
		{"deep, and all right", strings.Repeat(`{"a":`, 90) + `{"b":"s"}` + strings.Repeat(`}`, 90), []string{strings.Repeat("a.", 90) + "b"},
			strings.Repeat(`{"a":`, 90) + `{"b":` + gone + `}` + strings.Repeat(`}`, 90)},
		{"brackets in a text", `{"t":"x` + strings.Repeat(`[`, 500) + `\"","a":"s"}`, []string{"a"}, `{"t":"x` + strings.Repeat(`[`, 500) + `\"","a":` + gone + `}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := redactPayload(tc.payload, tc.paths...)
			if got.Payload != tc.want || got.Withheld != "" || got.Path != "/services?key=kept" {
				t.Errorf("got  %.200s\nwant %.200s\nwithheld %s, path %s", got.Payload, tc.want, got.Withheld, got.Path)
			}
		})
	}
}

// What is not strict JSON cannot be looked into: only what it was stays.
func TestWithheld(t *testing.T) {
	const notStrict, notObject = "not strict JSON", "not a JSON object or list"
	for name, c := range map[string]struct{ payload, reason string }{
		"form":                  {"name=x&config.api_key=S3CRET", notStrict},
		"form, encoded":         {"name=x&config%2Eapi_key=S3CRET", notStrict},
		"multipart":             {"--b\r\nContent-Disposition: form-data; name=\"config.api_key\"\r\n\r\nS3CRET\r\n--b--", notStrict},
		"cut off":               {`{"config":{"api_key":"S3CRET","x":`, notStrict},
		"NaN":                   {`{"config":{"api_key":"S3CRET","x":NaN}}`, notStrict},
		"hex":                   {`{"config":{"api_key":"S3CRET","x":0x1F}}`, notStrict},
		"raw line break":        {"{\"config\":{\"api_key\":\"S3\nCRET\"}}", notStrict},
		"BOM":                   {"\uFEFF" + `{"config":{"api_key":"S3CRET"}}`, notStrict},
		"trailing text":         {`{"config":{}} api_key=S3CRET`, notStrict},
		"two documents":         {`{"config":{}}{"config":{"api_key":"S3CRET"}}`, notStrict},
		"trailing comma":        {`{"config":{"api_key":"S3CRET",}}`, notStrict},
		"comment":               {`{/* */"config":{"api_key":"S3CRET"}}`, notStrict},
		"single quotes":         {`{'config':{'api_key':'S3CRET'}}`, notStrict},
		"duplicate keys":        {`{"config":{},"config":{"api_key":"S3CRET"}}`, notStrict},
		"duplicate, escaped":    {`{"config":{"api_key":"S3CRET","api\u005fkey":1}}`, notStrict},
		"half a surrogate pair": {`{"config":{"api_key":"S3CRET\ud83d"}}`, notStrict},
		"not UTF-8":             {"{\"config\":{\"api_key\":\"S3CRET\xff\"}}", notStrict},
		"NUL":                   {"{\"config\":{\"api_key\":\"S3CRET\"}}\x00", notStrict},
		"XML":                   {"<api_key>S3CRET</api_key>", notStrict},
		"a string":              {`"S3CRET"`, notObject},
		"JSON in a string":      {`"{\"config\":{\"api_key\":\"S3CRET\"}}"`, notObject},
		"a number":              {"1234567", notObject},
		"too deep":              {strings.Repeat(`[`, 5000) + `{"config":{"api_key":"S3CRET"}}` + strings.Repeat(`]`, 5000), "nested too deep"},
		"much too deep":         {strings.Repeat(`[`, 5_000_000) + `"S3CRET"` + strings.Repeat(`]`, 5_000_000), notStrict},
	} {
		t.Run(name, func(t *testing.T) {
			got := redactPayload(c.payload, "config.api_key")
			sum := sha256.Sum256([]byte(c.payload))
			want := fmt.Sprintf(`{"requestParameters.payload":{"bytes":%d,"sha256":"%s","reason":"%s"}}`, len(c.payload), hex.EncodeToString(sum[:]), c.reason)
			if got.Payload != "" || got.Withheld != want {
				t.Errorf("payload %.100s, withheld %s, want %s", got.Payload, got.Withheld, want)
			}
			again := got
			if New([]string{"config.api_key"})(&again); again != got {
				t.Errorf("a second time: %+v", again)
			}
		})
	}
}

func TestQuery(t *testing.T) {
	for given, want := range map[string]string{
		"/plugins":                                                       "/plugins",
		"/plugins?":                                                      "/plugins?",
		"/plugins?size=1&offset=WzFd%3D":                                 "/plugins?size=1&offset=WzFd%3D",
		"/plugins?config.api_key=S&size=1":                               "/plugins?config.api_key=[redacted]&size=1",
		"/plugins?config%2Eapi%5Fkey=S":                                  "/plugins?config%2Eapi%5Fkey=[redacted]",
		"/plugins?config%252Eapi_key=S":                                  "/plugins?config%252Eapi_key=[redacted]",
		"/plugins?config[api_key]=S;T;b=U&size=1":                        "/plugins?config[api_key]=[redacted];[redacted];[redacted]&size=1",
		"/plugins?config={\"api_key\":\"S;T\"}&a=1;b=2":                  "/plugins?config=[redacted];[redacted]&a=1;b=2",
		"/plugins?config[1][api_key]=S":                                  "/plugins?config[1][api_key]=[redacted]",
		"/plugins?config=%7B%22api_key%22:%22S%22%7D":                    "/plugins?config=[redacted]",
		"/plugins?filter=%7B%22config%22:%7B%22api_key%22:%22S%22%7D%7D": "/plugins?filter=[redacted]",
		"/plugins?q=api_key%3DS":                                         "/plugins?q=[redacted]",
		"/plugins?config.api_key%3DS":                                    "/plugins?[redacted]",
		"/plugins?config.api_key=":                                       "/plugins?config.api_key=[redacted]",
		"/plugins?api_key=kept":                                          "/plugins?api_key=kept",
		"/plugins%3Fconfig.api_key=S/x":                                  "/[redacted]/x",
		"/plugins?a=1?config.api_key=S":                                  "/plugins?a=[redacted]",
		"":                                                               "",
	} {
		e := audit.Entry{Path: given}
		if New([]string{"config.api_key"})(&e); e.Path != want || e.Withheld != "" {
			t.Errorf("%s: got %s, want %s, withheld %s", given, e.Path, want, e.Withheld)
		}
	}
	e := audit.Entry{Path: "/plugins?config%zz=S3CRET"}
	if New([]string{"config.api_key"})(&e); e.Path != "/plugins" || !strings.Contains(e.Withheld, `"requestParameters.queryParameters":{"bytes":16`) {
		t.Errorf("%+v", e)
	}
}

// What Kong adds in later releases, and fields that a caller can forge, may hold a
// payload as well.
func TestOtherFields(t *testing.T) {
	e := audit.Entry{
		Unknown:            `{"request_body":{"config":{"api_key":"S3CRET"}},"raw":"{\"config\":{\"api_key\":\"S3CRET\"}}","config":{"api_key":"S3CRET"},"zone":"eu"}`,
		RemovedFromPayload: "config.api_key=S3CRET",
		RBACUserName:       `{"config":{"api_key":"S3CRET"}}`,
		RequestSource:      "kong-manager",
	}
	New([]string{"config.api_key"})(&e)
	if text := fmt.Sprintf("%+v", e); strings.Contains(text, "S3CRET") || e.RequestSource != "kong-manager" || !strings.Contains(e.Unknown, `"zone":"eu"`) {
		t.Error(text)
	}
	e = audit.Entry{RemovedFromPayload: "config.api_key,password", Unknown: `{"a":1,"a":"S3CRET"}`}
	New([]string{"config.api_key"})(&e)
	if e.RemovedFromPayload != "config.api_key,password" || e.Unknown != "" || !strings.Contains(e.Withheld, "additionalEventData.kong") {
		t.Errorf("%+v", e)
	}
}

// FuzzSecret plants a secret under a path in many forms, damages the whole, and
// holds that the secret is gone, that what is left is strict JSON, and that a second
// time changes nothing.
func FuzzSecret(f *testing.F) {
	const secret = "S3CRETVALUE"
	forms := []string{
		`{"config":{"api_key":"` + secret + `"}}`, `{"x":1,"config":{"y":[],"api_key":["` + secret + `",{"z":"` + secret + `"}]}}`,
		`[{"config":[{"api_key":"` + secret + `"}]}]`, `{"x":"{\"config\":{\"api_key\":\"` + secret + `\"}}"}`,
		`"{\"config\":{\"api_key\":\"` + secret + `\"}}"`, `name=x&config.api_key=` + secret, `{"config.api_key":"` + secret + `"}`,
		"--b\r\nContent-Disposition: form-data; name=\"config.api_key\"\r\n\r\n" + secret + "\r\n--b--",
	}
	for i := range forms {
		f.Add(i, 0, "", "")
		f.Add(i, 3, "\uFEFF", "")
		f.Add(i, len(forms[i]), " trailing", "NaN")
		f.Add(i, 9, ",", "\n")
	}
	f.Fuzz(func(t *testing.T, form, at int, one, two string) {
		planted := forms[uint(form)%uint(len(forms))]
		cut := int(uint(at) % uint(len(planted)+1))
		payload := planted[:cut] + one + planted[cut:] + two
		// Damage to a key that leaves strict JSON makes another key, whose value stays.
		moved := one != "" && jsontext.Value(payload).IsValid()
		e := audit.Entry{Payload: payload, Path: "/plugins?config.api_key=" + url.QueryEscape(secret) + "&x=" + url.QueryEscape(planted)}
		New([]string{"config.api_key"})(&e)
		if !moved && strings.Contains(fmt.Sprintf("%+v", e), secret) {
			t.Fatalf("%q became %+v", payload, e)
		}
		if e.Payload != "" && !jsontext.Value(e.Payload).IsValid() || e.Withheld != "" && !jsontext.Value(e.Withheld).IsValid() {
			t.Fatalf("%q became %+v", payload, e)
		}
		again := e
		if New([]string{"config.api_key"})(&again); again != e {
			t.Fatalf("a second time: %+v became %+v", e, again)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	redact := New([]string{"config.api_key", "*.password"})
	payload := `{"name":"svc-1","host":"h.internal","config":{"api_key":"x","uris":["/a","/b"]},"tags":["a","b"]}`
	for b.Loop() {
		e := audit.Entry{Payload: payload, Path: "/services/2f9c1d7e-5b77-4a9e-8d2b-9c1e7f6a4d12/routes?size=100"}
		redact(&e)
	}
}

// Each text of an entry is either redacted, or is one that nobody writes a secret into.
func TestEveryText(t *testing.T) {
	asItIs := []string{"ID", "RequestID", "ClientIP", "Method", "Workspace", "Signature", "RBACUserID", "Withheld", "KongVersion", "Changes"}
	var e audit.Entry
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		if text, ok := reflect.TypeAssert[*string](v.Field(i).Addr()); ok && !slices.Contains(asItIs, v.Type().Field(i).Name) {
			*text = `{"key":"s3cret"}`
		}
	}
	e.Path = "/services?key=s3cret"
	New([]string{"key"})(&e)
	for i := range v.NumField() {
		if text, ok := reflect.TypeAssert[*string](v.Field(i).Addr()); ok && strings.Contains(*text, "s3cret") {
			t.Errorf("%s is %s", v.Type().Field(i).Name, *text)
		}
	}
}
