package config

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseEnvFile(t *testing.T) {
	vars, err := ParseEnvFile("\uFEFF# comment\n\nA=1\r\nexport B = \"two words\"\nC='x=y'\nD=\nE=\" x \"\n")
	want := map[string]string{"A": "1", "B": "two words", "C": "x=y", "D": "", "E": "x"}
	if err != nil || !maps.Equal(vars, want) {
		t.Errorf("%q, %v", vars, err)
	}
	for text, line := range map[string]string{"A=1\nnonsense\n": "line 2", "A B=1": "line 1", "A=\"secret": "line 1", "=x": "line 1"} {
		if _, err := ParseEnvFile(text); err == nil || !strings.Contains(err.Error(), line) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestInForce(t *testing.T) {
	vars := map[string]string{
		"KONG_ADMIN_API": "http://kong:8001", "RELAY_LOG_GROUP": "/kong/audit", "AWS_REGION": "eu-central-1", "REDIS_PASSWORD": "sesame",
		"RELAY_REDACT": "config.key, @secrets", "REDIS_USERNAME": "relay:hunter2,@redis",
	}
	getenv := func(name string) string { return vars[name] }
	flags := func(name string) (string, bool) { return "30m", name == "schedule" }
	s, err := Load(NeedKong|NeedLedger|NeedDestination, flags, getenv, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]InForce{}
	for _, in := range s.InForce() {
		got[in.Name] = in
		if strings.Contains(in.Value, "sesame") {
			t.Errorf("%+v shows a secret", in)
		}
	}
	for name, want := range map[string][2]string{
		"kong-admin-api": {"http://kong:8001", "variable"}, "schedule": {"30m", "flag"}, "redis-password": {"set", "variable"},
		"destination": {"cloudwatch", "follows from the others"}, "region": {"eu-central-1", "follows from the others"},
		"page-size": {"1000", "default"}, "channel-arn": {"", "not set"},
		"redact": {"config.key, @secrets", "variable"}, "redis-username": {notRepeated, "variable"},
	} {
		if in := got[name]; in.Value != want[0] || in.From != want[1] {
			t.Errorf("%s is %+v, want %v", name, in, want)
		}
	}
}

// A flag of a secret beats its variables, also in what is shown of it.
func TestSecretInForce(t *testing.T) {
	vars := map[string]string{
		"KONG_ADMIN_API": "http://kong:8001", "RELAY_LOG_GROUP": "g", "REGION": "eu-central-1", "REDIS_PASSWORD": "sesame",
		"REDIS_PASSWORD_SECRET_ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:redis-AbCdEf",
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("open"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := func(name string) (string, bool) {
		if name == "redis-password-file" {
			return file, true
		}
		return "", false
	}
	s, err := Load(NeedKong|NeedLedger|NeedDestination, flags, func(name string) string { return vars[name] }, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := s.RedisPassword.Reveal(t.Context()); text != "open" || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
	for _, in := range s.InForce() {
		if in.Name == "redis-password" && in.From != "file "+file {
			t.Errorf("%+v, want the file", in)
		}
	}
}

func TestShortListNamesSettings(t *testing.T) {
	var names []string
	for _, f := range Flags() {
		names = append(names, f.Name)
	}
	for _, name := range ShortList() {
		if !slices.Contains(names, name) {
			t.Errorf("there is no setting %s", name)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"serve", "status", "once", "outages"}
	for name, want := range map[string]string{"sevre": "serve", "serv": "serve", "stat": "status", "deliver": "", "x": "", "outage": "outages"} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
