package changes

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var testMasker = NewMasker([]byte("key of the ledger"), []string{"config.custom.inner", "*.hidden"})

// places are kinds of places in which an entity holds a secret, for %s.
var places = []struct{ kind, entity string }{
	{"certificates", `{"cert":"-----BEGIN CERTIFICATE-----","key":"%s"}`},
	{"certificates", `{"key_alt":"%s"}`},
	{"keys", `{"kid":"a","jwk":"{\"kty\":\"oct\",\"k\":\"%s\"}"}`},
	{"keys", `{"pem":{"private_key":"%s","public_key":"x"}}`},
	{"basicauth_credentials", `{"username":"ann","password":"%s"}`},
	{"keyauth_credentials", `{"key":"%s"}`},
	{"keyauth_enc_credentials", `{"key":"%s","key_ident":"%[1]s"}`},
	{"hmacauth_credentials", `{"username":"ann","secret":"%s"}`},
	{"jwt_secrets", `{"secret":"%s","algorithm":"HS256"}`},
	{"oauth2_credentials", `{"client_id":"a","client_secret":"%s"}`},
	{"oauth2_tokens", `{"access_token":"%s","refresh_token":"%[1]s","token_type":"bearer"}`},
	{"rbac_users", `{"name":"ann","user_token":"%s"}`},
	{"vaults", `{"config":{"token":"%s","host":"vault"}}`},
	{"event_hooks", `{"config":{"secret":"%s","headers":{"X-Any":"%[1]s"}}}`},
	{"plugins", `{"name":"session","config":{"secret":"%s"}}`},
	{"plugins", `{"name":"http-log","config":{"http_endpoint":"https://log.internal/%s"}}`},
	{"plugins", `{"name":"http-log","config":{"headers":{"X-Any":["%s"]}}}`},
	{"plugins", `{"name":"request-transformer","config":{"add":{"headers":["X-Any:%s"],"querystring":["api_key:%[1]s"]}}}`},
	{"plugins", `{"name":"loggly","config":{"key":"%s"}}`},
	{"plugins", `{"name":"ai-proxy","config":{"auth":{"header_name":"x","header_value":"%s","param_value":"%[1]s"}}}`},
	{"plugins", `{"name":"rate-limiting","config":{"redis":{"host":"r","password":"%s"}}}`},
	{"plugins", `{"name":"acme","config":{"storage_config":{"vault":{"token":"%s"}}}}`},
	{"plugins", `{"name":"pre-function","config":{"access":["local secret = \"%s\"\nkong.log(1)"]}}`},
	{"plugins", `{"name":"own","config":{"custom":{"inner":"%s"},"text":"{\"deep\":{\"apiKey\":\"%[1]s\"}}"}}`},
	{"services", `{"path":"/x?access_token=%s&size=1","url":"https://ann:%[1]s@host/"}`},
	{"unheard_of", `{"nested":[{"API-Key":"%s"},{"passwordHash":"%[1]s"},{"tokens":{"%[1]s":true}}]}`},
	{"unheard_of", `{"text":"-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END"}`},
	{"unheard_of", `{"params":[{"name":"Authorization","value":"%s"},{"key":"x-api-key","values":["%[1]s"]}]}`},
	{"unheard_of", `{"key2":"%s","api_key_1":"%[1]s","primaryKey":"%[1]s","key_store":"%[1]s"}`},
	{"unheard_of", `{"hook":"https://hooks.slack.com/services/T0/B0/%s"}`},
	{"unheard_of", `{"text":"{\"more\":\"[{\\\"password\\\":\\\"%s\\\"}]\"}"}`},
	{"plugins", `{"name":"request-transformer-advanced","config":{"replace":{"body":["a:%s"],"querystring":["b:%[1]s"]}}}`},
	{"plugins", `{"name":"request-callout","config":{"callouts":[{"request":{"headers":{"custom":{"x":"%s"}},"body":{"custom":{"y":"%[1]s"}}}}]}}`},
	{"plugins", `{"name":"kafka-log","config":{"schema_registry":{"confluent":{"authentication":{"basic":{"username":"%s","password":"%[1]s"}}}}}}`},
	{"plugins", `{"config":{"http_endpoint":"https://log.internal/%s","callouts":[{"request":{"headers":{"custom":{"x":"%[1]s"}}}}]}}`},
	{"partials", `{"type":"redis-ee","config":{"password":"%s","cloud_authentication":{"azure_tenant_id":"%[1]s"}}}`},
	{"unheard_of", `{"text":"Bearer %s","data":{"hidden":["%[1]s"]}}`},
	{"unheard_of", `{"name":"%s","name":"twice"}`},
	{"consumers", `{"password":"%s","removed":"x"}`},
}

func TestSecretsAreHidden(t *testing.T) {
	for i, p := range places {
		secret := fmt.Sprintf("s3cr3t%04dValueOfPlace", i)
		text := fmt.Sprintf(p.entity, secret)
		state := testMasker.Mask(p.kind, "k", text, "")
		for _, form := range []string{secret, base64.RawStdEncoding.EncodeToString([]byte(secret))[:20], hex.EncodeToString([]byte(secret))} {
			if strings.Contains(string(state), form) {
				t.Errorf("%s %s shows its secret: %s", p.kind, text, state)
			}
		}
		if again := testMasker.Mask(p.kind, "k", text, ""); again != state {
			t.Errorf("%s: an unchanged secret shows as changed: %s, %s", p.kind, state, again)
		}
		changed := testMasker.Mask(p.kind, "k", fmt.Sprintf(p.entity, secret+"x"), "")
		if from, to := Diff(state, changed); len(from) == 0 || len(to) == 0 {
			t.Errorf("%s: a changed secret does not show: %s, %s", p.kind, state, changed)
		}
		if other := NewMasker([]byte("another"), nil).Mask(p.kind, "k", text, ""); other == state {
			t.Errorf("%s: the digest does not depend on the key", p.kind)
		}
		if i == len(places)-2 { // not strict JSON
			continue
		}
		if hidden, ok := Hide(p.kind, text, "[redacted]"); strings.Contains(p.entity, `"inner"`) {
			continue // its path was named
		} else if !ok || strings.Contains(hidden, secret) && !strings.Contains(text, "hidden") {
			t.Errorf("Hide(%s, %s) = %s", p.kind, text, hidden)
		}
	}
}

func TestPlainFieldsAreNotHidden(t *testing.T) {
	for _, c := range []struct{ kind, entity string }{
		{"routes", `{"headers":{"x-team":["a"]},"hosts":["a.b"],"id":"5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001","methods":["GET"],"name":"orders","paths":["/a","~/b?c=d"],"service":{"id":"5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001"},"tags":["team:a"]}`},
		{"services", `{"connect_timeout":60000,"host":"h","name":"s","path":"/x?size=1","port":80,"protocol":"https","retries":5}`},
		{"consumers", `{"created_at":1,"custom_id":"c-1","tags":["x"],"username":"ann"}`},
		{"plugins", `{"config":{"hide_credentials":true,"key_in_header":true,"key_names":["apikey"]},"enabled":true,"name":"key-auth"}`},
		{"plugins", `{"config":{"limit_by":"credential","minute":5,"redis":{"host":"r","port":6379,"username":"u"}},"name":"rate-limiting"}`},
		{"plugins", `{"config":{"max_tokens":256,"token_expiration":7200},"name":"x"}`},
		{"plugins", `{"config":{"allowed_payload_size":8},"credential":{"id":"5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001"},"name":"x"}`},
		{"upstreams", `{"algorithm":"round-robin","hash_on_cookie":"sid","hash_on_cookie_path":"/","name":"u"}`},
		{"basicauth_credentials", `{"password":null,"username":"ann"}`},
		{"certificates", `{"cert":"-----BEGIN CERTIFICATE-----\nMIIB","key":null,"snis":["a.b"]}`},
	} {
		if state := testMasker.Mask(c.kind, "k", c.entity, ""); string(state) != c.entity {
			t.Errorf("%s %s\nbecame %s", c.kind, c.entity, state)
		}
	}
	if state := testMasker.Mask("routes", "k", `{"color":"red"}`, "color,x"); strings.Contains(string(state), "red") {
		t.Errorf("what Kong was told to exclude shows: %s", state)
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ before, after, from, to string }{
		{`{"a":1,"b":2}`, `{"b":2,"a":1.0}`, `[]`, `[]`},
		{`{"paths":["/a"]}`, `{"paths":["/b"]}`, `[{"path":"/paths/0","value":"/a"}]`, `[{"path":"/paths/0","value":"/b"}]`},
		{`{"paths":["/a"]}`, `{"paths":["/a","/b"]}`, `[{"path":"/paths","value":["/a"]}]`, `[{"path":"/paths","value":["/a","/b"]}]`},
		{`{"a":null}`, `{}`, `[]`, `[]`},
		{`{"a":null}`, `{"a":{}}`, `[{"path":"/a","value":null}]`, `[{"path":"/a","value":{}}]`},
		{`{"a":{}}`, `{"a":[]}`, `[]`, `[]`},
		{`{"a/b":{"~":1,"same":[1,{"x":2}]}}`, `{"a/b":{"~":2,"same":[1,{"x":2}]}}`, `[{"path":"/a~1b/~0","value":1}]`, `[{"path":"/a~1b/~0","value":2}]`},
		{`{"gone":1}`, `{"new":"\u0041"}`, `[{"path":"/gone","value":1}]`, `[{"path":"/new","value":"A"}]`},
		{``, `{"b":null,"a":{"x":[1]}}`, `[]`, `[{"path":"/a","value":{"x":[1]}}]`},
		{`{"a":1}`, ``, `[{"path":"/a","value":1}]`, `[]`},
		{`"[secret 1]"`, `{"a":1}`, `[{"path":"","value":"[secret 1]"}]`, `[{"path":"","value":{"a":1}}]`},
	} {
		from, to := Diff(State(c.before), State(c.after))
		if f, g := fields(t, from), fields(t, to); f != c.from || g != c.to {
			t.Errorf("Diff(%s, %s) = %s, %s; want %s, %s", c.before, c.after, f, g, c.from, c.to)
		}
	}
}

func fields(t *testing.T, list []Field) string {
	if list == nil {
		list = []Field{}
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEventIsCut(t *testing.T) {
	big := State(`{"a":"` + strings.Repeat("x", 300_000) + `","name":"orders"}`)
	_, to := Diff("", big)
	list := []Change{{Entity: "routes", Key: "k", Operation: Create, To: to, History: Exact}, {Entity: "plugins", Key: "p", Operation: Delete, History: Exact}}
	text := Event(list, false, 100_000)
	if want := `{"changes":[{"entity":"plugins","key":"p","operation":"delete","history":"exact"},` +
		`{"entity":"routes","key":"k","operation":"create","to":[{"path":"/name","value":"orders"}],"history":"exact","truncated":1}]}`; text != want {
		t.Errorf("event %.300s", text)
	}
	var many []Change
	for i := range 5000 {
		many = append(many, Change{Entity: "routes", Key: fmt.Sprint(i), Operation: Delete, History: Exact})
	}
	text = Event(many, true, 10_000)
	if len(text) > 10_000 || !strings.Contains(text, `"late":true`) || !strings.Contains(text, `"truncated":`) {
		t.Errorf("%d bytes: %.100s", len(text), text)
	}
	if text := Event(nil, true, 10); text != `{"changes":[],"late":true}` {
		t.Errorf("event %s", text)
	}
}

// Texts that are secrets by their form, whatever their field is called, and texts that look
// much like them.
func TestSecretsByTheirForm(t *testing.T) {
	letters := strings.Repeat("aB3", 14)
	for _, text := range []string{
		"-----BEGIN EC PRIVATE KEY-----\nMHc", base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY-----")),
		"AKIAIOSFODNN7EXAMPLE", "id ASIAIOSFODNN7EXAMPLE.", "sk-" + letters, "sk_live_" + letters, "ghp_" + letters, "ghs_" + letters, "github_pat_11A", "glpat-x",
		"xoxb-1", "AIza" + letters, "ya29.a", "hvs." + letters, "kpat_" + letters, "spat_" + letters, "https://hooks.slack.com/services/T0/B0/x",
		"https://discord.com/api/webhooks/1/x", "https://discordapp.com/api/webhooks/1/x", "https://a.webhook.office.com/x", "Bearer " + letters, " basic\tYTpi\n", "eyJhbGciOiJI.eyJzdWIiOiIx.x",
	} {
		b, err := json.Marshal(map[string]string{"note": text})
		if err != nil {
			t.Fatal(err)
		}
		state := testMasker.Mask("unheard_of", "k", string(b), "")
		if !strings.HasPrefix(string(state), `{"note":"[secret `) || len(state) > 64 {
			t.Errorf("%q is not hidden as a whole: %s", text, state)
		}
	}
	for _, text := range []string{"task-" + letters, "AKIAshort", "high", "xoxo", "discord", "hv", "pat_x", "keyJ", "basic auth is off", "token"} {
		b, err := json.Marshal(map[string]string{"note": text})
		if err != nil {
			t.Fatal(err)
		}
		if state := testMasker.Mask("unheard_of", "k", string(b), ""); string(state) != string(b) {
			t.Errorf("%q became %s", text, state)
		}
	}
}

// BenchmarkMask hides the secrets of an entity as most are: a route.
func BenchmarkMask(b *testing.B) {
	const route = `{"id":"5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001","name":"orders","created_at":1790000000,"updated_at":1790000100,"paths":["/orders","/v2/orders"],` +
		`"protocols":["http","https"],"methods":null,"hosts":["api.example"],"headers":null,"https_redirect_status_code":426,"path_handling":"v0","preserve_host":false,` +
		`"regex_priority":0,"request_buffering":true,"response_buffering":true,"service":{"id":"0c61e164-6171-4837-8836-8f5298726d53"},"snis":null,"sources":null,` +
		`"destinations":null,"strip_path":true,"tags":["team:orders"]}`
	for b.Loop() {
		if s := testMasker.Mask("routes", "k", route, ""); s.Name() != "orders" {
			b.Fatal(s)
		}
	}
}

// Of fields of one size just as many are left out as have to be.
func TestShrinkLeavesOutNoMoreThanItMust(t *testing.T) {
	var fields []Field
	for i := range 300 {
		fields = append(fields, Field{Path: fmt.Sprintf("/tags/%03d", i), Value: jsontext.Value(`"0123456789"`)})
	}
	for n, want := range map[int]int{0: 1, 1: 1, 21: 1, 22: 2, 100: 5, 21 * 300: 300} {
		list := []Change{{From: slices.Clone(fields[:150]), To: slices.Clone(fields[150:])}}
		if !shrink(list, n) || list[0].Truncated != want || len(list[0].From)+len(list[0].To) != 300-want {
			t.Errorf("%d bytes: %d of %d fields left out, want %d", n, list[0].Truncated, 300, want)
		}
	}
}
