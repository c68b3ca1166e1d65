package main

import (
	"encoding/base64"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func parse(t *testing.T, text string) *Config {
	t.Helper()
	return parseConfig(newSenders(newTarget, slog.New(slog.DiscardHandler)), []byte(text))
}

func TestConfigIsTaken(t *testing.T) {
	for _, text := range []string{
		`{"relay_url":"http://127.0.0.1:8080"}`,
		`{"relay_url":"https://relay:8443/v1/trigger","secret":"` + testSecret + `","__seq__":3,"__plugin_id":"x"}`,
		`{"relay_url":"http://[::1]:8080","secret":null,"lambda_function":null,"methods":{},"ignore_paths":[],"ca_cert":null}`,
		`{"lambda_function":"arn:aws:lambda:eu-central-1:123456789012:function:relay"}`,
		`{"relay_url":"http://localhost","methods":["post"],"ignore_paths":["^/status"],"timeout_ms":10,"min_interval_ms":1,"queue_size":1}`,
	} {
		c := parse(t, text)
		if len(c.problems) > 0 || c.unusable {
			t.Errorf("%s: %q", text, c.problems)
		}
	}
	// Whatever surrounds a value in an environment file or a vault.
	c := parse(t, `{"relay_url":" http://relay:8080\r\n","secret":"`+testSecret+`\n","timeout_ms":500.0,"min_interval_ms":1e2}`)
	if len(c.problems) > 0 || c.RelayURL != "http://relay:8080" || c.Secret != testSecret || c.TimeoutMS != 500 || c.MinIntervalMS != 100 {
		t.Errorf("%q %+v", c.problems, c.settings())
	}
	if c := parse(t, `{"lambda_function":"arn:aws:lambda:eu-central-1:123456789012:function:relay","secret":"`+testSecret+`"}`); c.unusable || len(c.problems) != 1 {
		t.Errorf("a function with a secret that it does not need: %q", c.problems)
	}
	if c := parse(t, `{"relay_url":"http://localhost","timeout_ms":null}`); !c.TLSVerify || c.TimeoutMS != 1000 || c.MinIntervalMS != 100 || c.QueueSize != 10000 {
		t.Errorf("defaults %+v", c)
	}
}

func TestConfigProblems(t *testing.T) {
	for config, want := range map[string]string{
		`[]`:                           "not a JSON object",
		`{}`:                           "one of relay_url and lambda_function must be set",
		`{"relay_url":3}`:              "relay_url must be a string",
		`{"relay_url":"relay:8080"}`:   "not http://host:port",
		`{"relay_url":"http://relay"}`: "a secret is needed",
		`{"relay_url":"http://relay","secret":"hidden"}`:               `does not begin with "whsec_"`,
		`{"relay_url":"http://relay","secret":"{vault://env/hidden}"}`: "a vault reference that Kong could not resolve",
		// What Kong sends for a reference that it could not resolve.
		`{"relay_url":"http://relay","secret":""}`:     "a vault reference that Kong could not resolve",
		`{"relay_url":"http://127.0.0.1","secret":""}`: "CLOUDTRAIL_RELAY_SECRET",
		`{"relay_url":"http://u:hidden@relay"}`:        "must not hold a user",
		`{"lambda_function":"relay"}`:                  "not an ARN",
		`{"relay_url":"http://localhost","lambda_function":"arn:aws:lambda:eu-central-1:123456789012:function:r"}`: "only one of",
		`{"relay_url":"http://localhost","ca_cert":"hidden"}`:                                                      "not the PEM text",
		`{"relay_url":"http://localhost","timeout_ms":0}`:                                                          "timeout_ms must be between 10 and 30000, not 0: 1000 is used",
		`{"relay_url":"http://localhost","queue_size":1000000}`:                                                    "queue_size must be between",
		`{"relay_url":"http://localhost","timeout_ms":100.5}`:                                                      "timeout_ms must be an integer",
		`{"relay_url":"http://localhost:65536"}`:                                                                   "a port that is not between 1 and 65535",
		`{"relay_url":"http://localhost","min_interval_ms":"often"}`:                                               "min_interval_ms must be an integer",
		`{"relay_url":"http://localhost","tls_verify":"yes"}`:                                                      "tls_verify must be true or false",
		`{"relay_url":"http://localhost","ignore_paths":["(?=x)","^/status"]}`:                                     `"(?=x)" is not a regular expression`,
		`{"relay_url":"http://localhost","methods":"GET"}`:                                                         "methods must be a list of strings",
	} {
		c := parse(t, config)
		text := strings.Join(c.problems, "; ")
		if !strings.Contains(text, want) || strings.Contains(text, "hidden") {
			t.Errorf("%s: %q, want %q", config, text, want)
		}
	}
	if c := parse(t, `{"relay_url":"http://localhost","ignore_paths":["(?=x)","^/status"]}`); c.unusable || len(c.ignore) != 1 {
		t.Error("one bad expression disables more than itself")
	}
}

func TestWanted(t *testing.T) {
	c := parse(t, `{"relay_url":"http://localhost","methods":["POST","delete"],"ignore_paths":["^/status","/audit/(requests|objects)(\\?.+)?"]}`)
	for request, want := range map[string]bool{
		"POST /services": true, "DELETE /services/a?x=%ff": true, "GET /services": false, "PATCH /services": false,
		"POST /status": false, "POST /a/status": true, "POST /default/audit/requests?size=1": false,
	} {
		method, path, _ := strings.Cut(request, " ")
		if c.wanted(method, path) != want {
			t.Errorf("%s: want %v", request, want)
		}
	}
}

// An event that goes wrong inside the handler ends there.
func TestLogRecovers(t *testing.T) {
	parse(t, `{"relay_url":"http://localhost"}`).Log(nil)
}

// field is a field of the schema, as far as this test reads it.
type field struct {
	Type          string
	Required      bool
	Default       any
	Between       []int
	Referenceable bool
	Encrypted     bool
	MatchNone     []pattern `json:"match_none"`
	MatchAny      struct {
		Patterns []string
		Err      string
	} `json:"match_any"`
}

type pattern struct{ Pattern, Err string }

// The schema that Kong sees and the struct that takes the values say the same.
func TestSchemaFitsConfig(t *testing.T) {
	var s struct {
		Name   string
		Fields []map[string]struct {
			Fields []map[string]field
		}
		EntityChecks []map[string]jsontext.Value `json:"entity_checks"`
	}
	if err := json.Unmarshal(schema, &s, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if s.Name != name {
		t.Errorf("name %q", s.Name)
	}
	var fields []map[string]field
	for _, f := range s.Fields {
		fields = append(fields, f["config"].Fields...)
	}
	defaults := reflect.ValueOf(New(nil)).Elem()
	exported := 0
	for i := range defaults.NumField() {
		f := defaults.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		tag := f.Tag.Get("json")
		if exported >= len(fields) {
			t.Fatalf("%s is not in the schema", tag)
		}
		got, ok := fields[exported][tag]
		exported++
		if !ok {
			t.Errorf("%s is not in its place in the schema", tag)
			continue
		}
		if want := map[reflect.Kind]string{reflect.String: "string", reflect.Int: "integer", reflect.Bool: "boolean", reflect.Slice: got.Type}[f.Type.Kind()]; got.Type != want {
			t.Errorf("%s has type %q, want %q", tag, got.Type, want)
		}
		switch v := defaults.Field(i).Interface().(type) {
		case int:
			if got.Default != float64(v) || !got.Required {
				t.Errorf("%s has default %v, want %d", tag, got.Default, v)
			}
			for _, bound := range got.Between {
				if c := parse(t, `{"relay_url":"http://localhost","`+tag+`":`+strconv.Itoa(bound)+`}`); len(c.problems) > 0 {
					t.Errorf("a bound of the schema is refused: %q", c.problems)
				}
			}
			for _, outside := range []int{got.Between[0] - 1, got.Between[1] + 1} {
				if c := parse(t, `{"relay_url":"http://localhost","`+tag+`":`+strconv.Itoa(outside)+`}`); len(c.problems) != 1 {
					t.Errorf("%s=%d: %q", tag, outside, c.problems)
				}
			}
		case bool:
			if got.Default != v {
				t.Errorf("%s has default %v, want %v", tag, got.Default, v)
			}
		}
		if secret := tag == "secret"; got.Referenceable != secret || got.Encrypted != secret {
			t.Errorf("%s: referenceable %v, encrypted %v", tag, got.Referenceable, got.Encrypted)
		}
	}
	if exported != len(fields) {
		t.Errorf("the schema has %d fields, the configuration %d", len(fields), exported)
	}
	want := []map[string]string{
		{"at_least_one_of": `["config.relay_url", "config.lambda_function"]`},
		{"mutually_exclusive": `["config.relay_url", "config.lambda_function"]`},
		{"mutually_exclusive": `["config.lambda_function", "config.secret"]`},
	}
	for i, check := range want {
		for kind, fields := range check {
			if got := string(s.EntityChecks[i][kind]); got != fields {
				t.Errorf("entity check %d is %s, want %s of %s", i, got, kind, fields)
			}
		}
	}
	if len(s.EntityChecks) != len(want)+1 { // and the one of TestSchemaNeedsASecret
		t.Errorf("%d entity checks", len(s.EntityChecks))
	}
}

// relay_url needs a secret, in the schema as in the plugin, unless its host is
// loopback.
func TestSchemaNeedsASecret(t *testing.T) {
	var s struct {
		EntityChecks []struct {
			Conditional struct {
				IfField string `json:"if_field"`
				IfMatch struct {
					Required  bool
					MatchNone []pattern `json:"match_none"`
				} `json:"if_match"`
				ThenAtLeastOneOf []string `json:"then_at_least_one_of"`
				ThenErr          string   `json:"then_err"`
			} `json:"conditional_at_least_one_of"`
		} `json:"entity_checks"`
	}
	if err := json.Unmarshal(schema, &s, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	c := s.EntityChecks[len(s.EntityChecks)-1].Conditional
	if c.IfField != "config.relay_url" || !c.IfMatch.Required || !slices.Equal(c.ThenAtLeastOneOf, []string{"config.secret"}) || c.ThenErr == "" {
		t.Fatalf("%+v", c)
	}
	for url, needs := range map[string]bool{
		"http://relay": true, "http://localhost.example.com": true, "https://127.0.0.1.example.com/": true, "http://10.0.0.1:8080": true, "http://[2001:db8::1]": true,
		"http://[::]": true, "http://relay/localhost": true, "http://0.0.0.0": true, "http://relay:8080/127.0.0.1": true,
		"http://localhost": false, "http://LocalHost:8080": false, "https://localhost/v1/trigger": false, "http://127.0.0.1": false, "http://127.9.8.7:1/": false,
		"http://[::1]:8080": false, "http://[::1]": false, " http://localhost ": false,
	} {
		matches := !slices.ContainsFunc(c.IfMatch.MatchNone, func(p pattern) bool { return luaPattern(t, p.Pattern).MatchString(url) })
		refused := strings.Contains(strings.Join(parse(t, `{"relay_url":"`+url+`"}`).problems, "; "), "a secret is needed")
		if matches != needs || refused != needs {
			t.Errorf("%q needs a secret: the schema says %v, the plugin %v, want %v", url, matches, refused, needs)
		}
	}
}

// schemaField returns a field of the plugin's configuration.
func schemaField(t *testing.T, name string) field {
	t.Helper()
	var s struct {
		Fields []map[string]struct{ Fields []map[string]field }
	}
	if err := json.Unmarshal(schema, &s, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	for _, top := range s.Fields {
		for _, fields := range top["config"].Fields {
			if f, ok := fields[name]; ok {
				return f
			}
		}
	}
	t.Fatalf("%s is not in the schema", name)
	return field{}
}

// takes reports whether Kong's Admin API accepts the value.
func (f field) takes(t *testing.T, value string) bool {
	t.Helper()
	fits := func(pattern string) bool { return luaPattern(t, pattern).MatchString(value) }
	return !slices.ContainsFunc(f.MatchNone, func(p pattern) bool { return fits(p.Pattern) }) && slices.ContainsFunc(f.MatchAny.Patterns, fits)
}

// luaPattern translates a pattern of Lua's, as far as the schema uses them.
func luaPattern(t *testing.T, pattern string) *regexp.Regexp {
	t.Helper()
	classes := map[byte]string{'w': "0-9A-Za-z", 'd': "0-9", 'x': "0-9A-Fa-f", 's': ` \t-\r`, 'c': `\x00-\x1f\x7f`}
	var b strings.Builder
	set := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '%':
			i++
			class, ok := classes[pattern[i]]
			switch {
			case !ok:
				b.WriteString(`\` + pattern[i:i+1])
			case set:
				b.WriteString(class)
			default:
				b.WriteString("[" + class + "]")
			}
		case c == '-' && !set:
			t.Fatalf("a bare - in %s repeats what is before it", pattern)
		default:
			set = c == '[' || set && c != ']'
			b.WriteByte(c)
		}
	}
	return regexp.MustCompile(b.String())
}

// What the Admin API takes the plugin can use, and what it refuses the plugin
// would have refused: a mistake shows when it is made.
func TestSchemaAgreesWithConfig(t *testing.T) {
	const arn = "arn:aws:lambda:eu-west-1:123456789012:function:"
	in := func(partition, region string) string {
		return "arn:" + partition + ":lambda:" + region + ":123456789012:function:relay"
	}
	key := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for name, values := range map[string]map[string]bool{
		"relay_url": {
			"http://relay": true, "https://relay:8443": true, "http://relay.example.com./": true, "http://10.0.0.1:8080/v1/trigger": true,
			"http://[::1]:8080": true, "https://[2001:db8::1]/relay": true, "http://re_lay-1:": true, "http://relay/ä": true,
			"": false, "relay:8080": false, "ftp://relay": false, "http://": false, "http://:8080": false, "http://:8080/a": false,
			"http:///v1/trigger": false, "http://relay:port": false, "http://relay:80:80": false, "http://[::1": false, "http://[relay]": false,
			"http://user@relay": false, "http://user:pass@relay/": false, "http://relay?a": false, "http://relay/?a": false, "http://relay#a": false,
			"http://relay:0": false, "http://relay:00/a": false, "http://relay:65535": true, "http://relay:65536": false, "http://relay:70000/": false, "http://[::1]:0": false,
			"http://relay:99999999999999999999": false, "http://relay:65529": true, "http://relay:65540": false, "http://relay:00080": true, "http://relay/a:0": true, "http://relay:66000": false,
			" http://relay\r\n": true, "https://relay:8443/v1/trigger\n": true,
			"http://re lay": false, "http://re\nlay": false, "http://relay/a%zz": false, "http://relay/\x00": false, "http://re\x01lay": false,
		},
		"lambda_function": {
			in("aws", "eu-west-1"): true, in("aws-cn", "cn-north-1"): true, in("aws-us-gov", "us-gov-west-1"): true,
			in("aws-iso", "us-iso-east-1"): true, in("aws-iso-b", "us-isob-east-1"): true, in("aws-iso-f", "us-isof-south-1"): true,
			in("aws-eusc", "eusc-de-east-1"): true, arn + "relay:live": true, arn + "relay:$LATEST": true, arn + "re_lay-2:17": true,
			arn + strings.Repeat("a", 65): true, // AWS has none, and says so
			"":                            false, "relay": false, arn: false, arn + "relay:": false, arn + "relay:a:b": false, arn + ":a": false, arn + "relay/a": false,
			" " + arn + "relay\n":    true,
			in("azure", "eu-west-1"): false, in("aws.cn", "cn-north-1"): false, in("aws", "eu"): false, in("aws", "eu-west"): false,
			in("aws", "EU-WEST-1"): false, in("aws", "evil.example.com/-a-1"): false, arn + "re\nlay": false,
			"arn:aws:lambda:eu-west-1:1234:function:relay": false, "arn:aws:s3:::bucket": false,
		},
		"secret": {
			key(24): true, key(25): true, key(26): true, key(32): true, key(64): true,
			key(32) + "\n": true, "\t" + key(64) + " ": true, strings.TrimPrefix(key(32), "whsec_"): false,
			"": false, key(0): false, key(21): false, key(67): false, "hidden": false, strings.Repeat("a", 44): false,
			"whsec_" + strings.Repeat("!", 32): false, // a pattern cannot count by fours: a byte or two too many pass
		},
	} {
		f := schemaField(t, name)
		for value, want := range values {
			config := map[string]string{"relay_url": "http://relay", "secret": testSecret}
			if name == "lambda_function" {
				delete(config, "relay_url")
				delete(config, "secret")
			}
			config[name] = value
			data, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			problems := parse(t, string(data)).problems
			if f.takes(t, value) != want || (len(problems) == 0) != want {
				t.Errorf("%s %q: the schema takes it: %v, the plugin says %q; want %v", name, value, f.takes(t, value), problems, want)
			}
		}
	}
}
