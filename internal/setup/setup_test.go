package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// complete returns the files of a plan, by name.
func complete(t *testing.T, p *Plan) map[string]string {
	t.Helper()
	if err := p.Complete(); err != nil {
		t.Fatal(err)
	}
	list, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range list {
		files[f.Name] = f.Text
		if secret := strings.Contains(f.Text, "whsec_") || strings.Contains(f.Text, p.Variables["KONG_ADMIN_TOKEN"]) && p.Variables["KONG_ADMIN_TOKEN"] != ""; secret && f.Mode != 0o600 {
			t.Errorf("%s holds a secret and has mode %o", f.Name, f.Mode)
		}
	}
	return files
}

func plan(relay string, variables ...string) *Plan {
	p := &Plan{Variables: map[string]string{"KONG_ADMIN_API": "https://kong:8444"}, RelayURL: relay, RBAC: true}
	for i := 0; i < len(variables); i += 2 {
		p.Variables[variables[i]] = variables[i+1]
	}
	return p
}

const channel = "arn:aws-cn:cloudtrail:cn-north-1:123456789012:channel/11111111-2222-3333-4444-555555555555"

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		name      string
		variables []string
		want      []string // resource: actions
	}{
		{"log group", []string{"RELAY_LOG_GROUP", "/kong/audit", "REGION", "eu-central-1"}, []string{
			`"arn:aws:logs:eu-central-1:*:log-group:/kong/audit:*"`, `"logs:PutLogEvents"`, `"logs:CreateLogStream"`, `"logs:DescribeLogGroups"`, `"logs:FilterLogEvents"`}},
		{"its ARN", []string{"RELAY_LOG_GROUP", "arn:aws-us-gov:logs:us-gov-west-1:123456789012:log-group:/kong/audit"}, []string{
			`"arn:aws-us-gov:logs:us-gov-west-1:123456789012:log-group:/kong/audit:*"`}},
		{"channel", []string{"CHANNEL_ARN", channel, "RELAY_EVENT_DATA_STORE", "11111111-2222-3333-4444-555555555555"}, []string{
			`"` + channel + `"`, `"cloudtrail-data:PutAuditEvents"`, `"cloudtrail:StartQuery"`,
			`"arn:aws-cn:cloudtrail:cn-north-1:123456789012:eventdatastore/11111111-2222-3333-4444-555555555555"`}},
		{"file and a secret", []string{"RELAY_DESTINATION", "jsonl:-", "KONG_ADMIN_TOKEN_SECRET_ARN", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong#token"}, []string{
			`"secretsmanager:GetSecretValue"`, `"arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong"`}},
	} {
		policy := complete(t, plan("http://relay:8080", c.variables...))[policyJSON]
		for _, want := range c.want {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: no %s in\n%s", c.name, want, policy)
			}
		}
	}
	if policy, ok := complete(t, plan("http://relay:8080", "RELAY_DESTINATION", "jsonl:-"))[policyJSON]; ok {
		t.Errorf("a file needs nothing in AWS: %s", policy)
	}
}

func TestListenAddress(t *testing.T) {
	for relay, want := range map[string]string{
		"http://relay:8080": "0.0.0.0:8080", "http://localhost:81": "localhost:81", "http://[::1]:8080": "[::1]:8080", "http://relay": "0.0.0.0:80",
		"https://relay.internal": "0.0.0.0:8080", "http://10.0.0.1:8080": "0.0.0.0:8080",
	} {
		if got, err := listenAddress(relay); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", relay, got, err, want)
		}
	}
	for _, relay := range []string{"", "relay:8080", "ftp://relay", "http://relay/v1/trigger", "http://user:hunter2@relay"} {
		var usage *config.Error
		if _, err := listenAddress(relay); !errors.As(err, &usage) {
			t.Errorf("%q: %v", relay, err)
		}
	}
}

// TestGivenSecretsStay takes over secrets that exist, and makes no user for a token that exists.
func TestGivenSecretsStay(t *testing.T) {
	const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	files := complete(t, plan("http://relay:8080", "RELAY_DESTINATION", "jsonl:-", "RELAY_TRIGGER_SECRET", secret, "KONG_ADMIN_TOKEN", "mine"))
	if !strings.Contains(files[relayEnv], "RELAY_TRIGGER_SECRET="+secret+"\n") || !strings.Contains(files[kongEnv], "CLOUDTRAIL_RELAY_SECRET="+secret+"\n") || files[kongUser] != "" {
		t.Errorf("files %v", files)
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	files = complete(t, plan("http://relay:8080", "RELAY_DESTINATION", "jsonl:-", "RELAY_TRIGGER_SECRET_FILE", path))
	if strings.Contains(files[relayEnv], "whsec_") || files[kongEnv] != "" || files[kongUser] == "" {
		t.Errorf("files %v", files)
	}
}

func TestQuestions(t *testing.T) {
	for _, c := range []struct {
		name, answers string
		want          map[string]string
		relay         string
		rbac          bool
	}{
		{"defaults", "\n\n\neu-central-1\n\n\n", map[string]string{
			"KONG_ADMIN_API": "http://localhost:8001", "RELAY_LOG_GROUP": "/kong/audit", "REGION": "eu-central-1", "REDIS_HOST": "localhost:6379",
		}, "http://relay:8080", true},
		{"others", "https://kong:8444\nno\n" + channel + "\nbolt:relay.db\nhttp://127.0.0.1:8080\n", map[string]string{
			"KONG_ADMIN_API": "https://kong:8444", "CHANNEL_ARN": channel, "RELAY_LEDGER": "bolt:relay.db",
		}, "http://127.0.0.1:8080", false},
		{"a Region is needed", "\n\n/a\n\n \neu-west-1\n\n\n", map[string]string{
			"KONG_ADMIN_API": "http://localhost:8001", "RELAY_LOG_GROUP": "/a", "REGION": "eu-west-1", "REDIS_HOST": "localhost:6379",
		}, "http://relay:8080", true},
	} {
		var asked strings.Builder
		p := &Plan{Variables: map[string]string{}, RBAC: true}
		if err := NewDialog(strings.NewReader(c.answers), &asked).Questions(p); err != nil {
			t.Errorf("%s: %v after %q", c.name, err, asked.String())
		}
		for name, want := range c.want {
			if p.Variables[name] != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, p.Variables[name], want)
			}
		}
		if len(p.Variables) != len(c.want) || p.RelayURL != c.relay || p.RBAC != c.rbac {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	if err := NewDialog(strings.NewReader("http://kong:8001\n"), &strings.Builder{}).Questions(&Plan{Variables: map[string]string{}, RBAC: true}); err == nil {
		t.Error("the input ended, and no error")
	}
}

func TestWriteOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "b")
	if err := os.Symlink("nowhere", there); err != nil {
		t.Fatal(err)
	}
	files := []File{{"a", "", 0o644, "a"}, {"b", "", 0o600, "b"}}
	if err := Write(dir, files); err == nil || !strings.Contains(err.Error(), there) {
		t.Errorf("error %v", err)
	}
	list, err := fs.Glob(os.DirFS(dir), "*")
	if err != nil || !slices.Equal(list, []string{"b"}) {
		t.Errorf("files %v, %v", list, err)
	}
}
