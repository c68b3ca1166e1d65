package main

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"
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
		`{"relay_url":"http://relay","secret":"hidden"}`:                                                           `does not begin with "whsec_"`,
		`{"relay_url":"http://relay","secret":"{vault://env/hidden}"}`:                                             "vault reference",
		`{"relay_url":"http://u:hidden@relay"}`:                                                                    "must not hold a user",
		`{"lambda_function":"relay"}`:                                                                              "not an ARN",
		`{"relay_url":"http://localhost","lambda_function":"arn:aws:lambda:eu-central-1:123456789012:function:r"}`: "only one of",
		`{"relay_url":"http://localhost","ca_cert":"hidden"}`:                                                      "not PEM",
		`{"relay_url":"http://localhost","timeout_ms":0}`:                                                          "timeout_ms must be between 10 and 30000, not 0: 1000 is used",
		`{"relay_url":"http://localhost","queue_size":1000000}`:                                                    "queue_size must be between",
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
	MatchAny      struct {
		Patterns []string
		Err      string
	} `json:"match_any"`
}

// The schema that Kong sees and the struct that takes the values say the same.
func TestSchemaFitsConfig(t *testing.T) {
	var s struct {
		Name   string
		Fields []map[string]struct {
			Fields []map[string]field
		}
		EntityChecks []map[string][]string `json:"entity_checks"`
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatal(err)
	}
	if s.Name != name {
		t.Errorf("name %q", s.Name)
	}
	var fields []map[string]field
	for _, f := range s.Fields {
		fields = append(fields, f["config"].Fields...)
	}
	defaults := reflect.ValueOf(newConfig(nil)).Elem()
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
	targets := []string{"config.relay_url", "config.lambda_function"}
	want := []map[string][]string{{"at_least_one_of": targets}, {"mutually_exclusive": targets}}
	if !reflect.DeepEqual(s.EntityChecks, want) {
		t.Errorf("entity checks %v", s.EntityChecks)
	}
}
