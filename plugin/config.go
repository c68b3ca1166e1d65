package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config is an instance's configuration, as Kong sends it. Kong makes one
// instance for each worker and configuration, and new ones at every change, so
// nothing that has to last is kept here. schema.json describes the fields to
// Kong; a test holds the two together.
type Config struct {
	RelayURL       string   `json:"relay_url"`       // http(s)://host:port of the relay, or
	LambdaFunction string   `json:"lambda_function"` // the ARN of the relay's Lambda function
	Secret         string   `json:"secret"`          // whsec_…, for relay_url
	Methods        []string `json:"methods"`         // ring for these only; empty: for all
	IgnorePaths    []string `json:"ignore_paths"`    // regular expressions; do not ring for Admin API paths that match one
	TimeoutMS      int      `json:"timeout_ms"`      // of one attempt
	MinIntervalMS  int      `json:"min_interval_ms"` // between two rings
	QueueSize      int      `json:"queue_size"`      // ids that wait at the most
	TLSVerify      bool     `json:"tls_verify"`
	CACert         string   `json:"ca_cert"` // PEM text

	senders  *senders
	ignore   []*regexp.Regexp
	problems []string // for Kong's log, once
	unusable bool     // there is nothing to ring
	entity   string   // the plugin in Kong, for Kong's log
	report   *report
}

func newConfig(s *senders) *Config {
	return &Config{TimeoutMS: 1000, MinIntervalMS: 100, QueueSize: 10000, TLSVerify: true, senders: s}
}

// settings are the part of a configuration that tells senders apart. Instances
// that agree in them share one.
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

// parseConfig reads a configuration. It never fails: an error here would end
// Kong's connection without a word. What is wrong goes to Kong's log with the
// first event.
func parseConfig(s *senders, data []byte) *Config {
	c := newConfig(s)
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
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
		value := fields[f.name]
		if _, list := f.to.(*[]string); list && bytes.Equal(value, []byte("{}")) {
			continue // how Lua writes an empty list
		}
		if value != nil && json.Unmarshal(value, f.to) != nil {
			c.problems = append(c.problems, f.name+" must be "+f.want)
		}
	}
	c.prepare()
	c.identify(data)
	return c
}

// identify says whose configuration this is, and which. Kong adds the entity's
// id, in older releases only a key made of where the entity applies. What else
// it adds differs from worker to worker, such as __seq__, so the rest is told by
// what the plugin has made of it. (kong/runloop/plugins_iterator.lua)
func (c *Config) identify(data []byte) {
	var meta struct {
		ID  string `json:"__plugin_id"`
		Key string `json:"__key__"`
	}
	_ = json.Unmarshal(data, &meta) // without either all are one entity
	if meta.ID != "" {
		c.entity = " with id " + meta.ID
	}
	config, _ := json.Marshal(struct {
		*Config
		Problems []string
	}{c, c.problems})
	c.report = c.senders.report(cmp.Or(meta.ID, meta.Key), sha256.Sum256(config))
}

// prepare checks what Kong has not checked by the schema, and what an older
// schema or a vault reference may have let through.
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
			c.problems = append(c.problems, fmt.Sprintf("ignore_paths: %q is not a regular expression of Go's syntax, and ignores nothing", expr))
			continue
		}
		c.ignore = append(c.ignore, re)
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
	case strings.HasPrefix(c.Secret, "{vault://"):
		return errors.New("secret is a vault reference that Kong could not resolve")
	}
	t, err := c.senders.newTarget(c.settings())
	if err == nil {
		t.Close()
	}
	return err
}

// filtered tells whether method or path decide about an event.
func (c *Config) filtered() bool { return len(c.Methods) > 0 || len(c.ignore) > 0 }

// wanted tells whether Kong records a request to the Admin API, as far as the
// filters mirror kong.conf's audit_log_ignore_methods and audit_log_ignore_paths.
// Like there, a path is matched with its query, and anywhere in it.
func (c *Config) wanted(method, path string) bool {
	if len(c.Methods) > 0 && !slices.Contains(c.Methods, method) {
		return false
	}
	return !slices.ContainsFunc(c.ignore, func(re *regexp.Regexp) bool { return re.MatchString(path) })
}
