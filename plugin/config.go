package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Config is the configuration of an instance, as Kong sends it. Kong makes one
// instance for each worker and configuration, and new ones at every change, so
// an instance keeps nothing that has to last. schema.json describes the fields to
// Kong; a test compares the two.
type Config struct {
	RelayURL       string   `json:"relay_url"`       // http(s)://host:port of the relay, or
	LambdaFunction string   `json:"lambda_function"` // the ARN of the relay's Lambda function
	Secret         string   `json:"secret"`          // whsec_…, for relay_url
	Methods        []string `json:"methods"`         // only these trigger the relay; all if empty
	IgnorePaths    []string `json:"ignore_paths"`    // regular expressions of Admin API paths that do not trigger it
	TimeoutMS      int      `json:"timeout_ms"`      // of one attempt
	MinIntervalMS  int      `json:"min_interval_ms"` // between two triggers
	QueueSize      int      `json:"queue_size"`      // the most ids that wait
	TLSVerify      bool     `json:"tls_verify"`
	CACert         string   `json:"ca_cert"` // PEM text

	senders  *senders
	ignore   []*regexp.Regexp
	problems []string // for Kong's log, once
	unusable bool     // there is nothing to trigger
	noSecret bool     // Kong has a reference to a secret, and no secret
	entity   string   // the plugin entity in Kong, for Kong's log
	report   *report
}

// New returns a configuration with its defaults.
func New(s *senders) *Config {
	return &Config{TimeoutMS: 1000, MinIntervalMS: 100, QueueSize: 10000, TLSVerify: true, senders: s}
}

// settings are the part of a configuration that determines its sender. Instances
// with the same settings share one.
type settings struct {
	relayURL, lambdaFunction, secret, caCert string
	tlsVerify                                bool
	timeout, minInterval                     time.Duration
	queueSize                                int
}

func (c *Config) settings() settings {
	return settings{
		relayURL: c.RelayURL, lambdaFunction: c.LambdaFunction, secret: c.Secret, caCert: c.CACert,
		tlsVerify: c.TLSVerify, timeout: time.Duration(c.TimeoutMS) * time.Millisecond,
		minInterval: time.Duration(c.MinIntervalMS) * time.Millisecond, queueSize: c.QueueSize,
	}
}

// lenient accepts what Lua's encoder may write.
var lenient = json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// parseConfig decodes a configuration. It never fails, because Kong would close the
// connection without logging why. The first event of the instance logs the problems.
func parseConfig(s *senders, data []byte) *Config {
	c := New(s)
	var fields map[string]jsontext.Value
	if json.Unmarshal(data, &fields, lenient) != nil {
		c.problems = append(c.problems, "the configuration is not a JSON object")
	}
	for _, f := range []struct {
		name string
		to   any
		want string
	}{
		{"relay_url", &c.RelayURL, "a string"},
		{"lambda_function", &c.LambdaFunction, "a string"},
		{"secret", &c.Secret, "a string"},
		{"methods", &c.Methods, "a list of strings"},
		{"ignore_paths", &c.IgnorePaths, "a list of strings"},
		{"timeout_ms", &c.TimeoutMS, "an integer"},
		{"min_interval_ms", &c.MinIntervalMS, "an integer"},
		{"queue_size", &c.QueueSize, "an integer"},
		{"tls_verify", &c.TLSVerify, "true or false"},
		{"ca_cert", &c.CACert, "a string"},
	} {
		if !setField(f.to, fields[f.name]) {
			c.problems = append(c.problems, f.name+" must be "+f.want)
		}
	}
	// Kong's schema refuses an empty secret: it is what a reference is that Kong could not resolve.
	c.noSecret = fields["secret"].Kind() == '"' && c.Secret == "" || strings.HasPrefix(c.Secret, "{vault://")
	c.prepare()
	c.identify(fields)
	return c
}

// setField decodes value into the field that to points to, and reports whether it
// could. A missing value and null leave the default.
func setField(to any, value jsontext.Value) bool {
	if value == nil || value.Kind() == 'n' {
		return true
	}
	switch to := to.(type) {
	case *string:
		var s string
		if json.Unmarshal(value, &s, lenient) != nil {
			return false
		}
		*to = strings.TrimSpace(s) // a vault's or a form's value often ends with a line break
		return true
	case *int:
		var f float64 // Lua has no other numbers, and may write 1e2 or 100.0
		if json.Unmarshal(value, &f) != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
			return false
		}
		*to = int(f)
		return true
	case *[]string:
		if string(value) == "{}" {
			return true // Lua's encoder writes an empty list like this
		}
	}
	return json.Unmarshal(value, to, lenient) == nil
}

// identify determines whose configuration this is, and which. Kong adds the
// entity's id, or in older releases only a key that says where the entity applies.
// It also adds values that differ between workers, such as __seq__, so the digest
// covers the decoded fields only. (kong/runloop/plugins_iterator.lua).
func (c *Config) identify(fields map[string]jsontext.Value) {
	var id, key string
	_ = setField(&id, fields["__plugin_id"])
	_ = setField(&key, fields["__key__"])
	if id != "" {
		c.entity = " with id " + id
	}
	config, _ := json.Marshal(struct {
		*Config
		Problems []string
	}{c, c.problems}, jsontext.AllowInvalidUTF8(true))
	c.report = c.senders.report(cmp.Or(id, key), sha256.Sum256(config))
}

// prepare checks what the schema has not checked: Kong may know an older schema,
// and it does not check a value that it reads from a vault.
func (c *Config) prepare() {
	for _, n := range []struct {
		name      string
		value     *int
		low, high int
		fallback  int
	}{
		{"timeout_ms", &c.TimeoutMS, 10, 30000, 1000},
		{"min_interval_ms", &c.MinIntervalMS, 1, 60000, 100},
		{"queue_size", &c.QueueSize, 1, 100000, 10000},
	} {
		if *n.value < n.low || *n.value > n.high {
			c.problems = append(c.problems, fmt.Sprintf("%s must be between %d and %d, not %d: %d is used", n.name, n.low, n.high, *n.value, n.fallback))
			*n.value = n.fallback
		}
	}
	for i, m := range c.Methods {
		c.Methods[i] = strings.ToUpper(m)
	}
	for _, expr := range c.IgnorePaths {
		re, err := regexp.Compile(expr)
		if err != nil {
			c.problems = append(c.problems, fmt.Sprintf("ignore_paths: %q is not a regular expression in Go's syntax, and is not used", expr))
			continue
		}
		c.ignore = append(c.ignore, re)
	}
	if c.LambdaFunction != "" && c.Secret != "" {
		c.problems = append(c.problems, "secret is for relay_url only: AWS signs an invocation of lambda_function, and the secret is not used")
	}
	if err := c.checkTarget(); err != nil {
		c.problems = append(c.problems, err.Error())
		c.unusable = true
	}
}

func (c *Config) checkTarget() error {
	switch {
	case c.RelayURL == "" && c.LambdaFunction == "":
		return errors.New("one of relay_url and lambda_function must be set")
	case c.RelayURL != "" && c.LambdaFunction != "":
		return errors.New("only one of relay_url and lambda_function can be set")
	case c.noSecret && c.RelayURL != "":
		return errors.New("secret is a vault reference that Kong could not resolve: what it names must be there for the Kong node that has the route, " +
			"{vault://env/cloudtrail-relay-secret} the variable CLOUDTRAIL_RELAY_SECRET of its environment")
	}
	_, err := c.senders.newTarget(c.settings())
	return err
}

// expect reports whether the next event may end before its id has arrived. After
// true the caller calls senders.arrive once it has called Log.
func (c *Config) expect() bool {
	return !c.unusable && (len(c.problems) == 0 || c.report.done.Load()) && c.senders.expect(c.settings())
}

// wanted reports whether Kong records a request to the Admin API, provided that the
// filters mirror kong.conf's audit_log_ignore_methods and audit_log_ignore_paths. As
// there, an expression may match any part of the path with its query.
func (c *Config) wanted(method, path string) bool {
	if len(c.Methods) > 0 && !slices.Contains(c.Methods, method) {
		return false
	}
	return !slices.ContainsFunc(c.ignore, func(re *regexp.Regexp) bool { return re.MatchString(path) })
}
