package changes

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// encrypted lists the fields of each plugin that the schemas of Kong Gateway 3.4 to 3.15
// mark as encrypted, in a line for each plugin. What begins with @ stands for the fields
// that several of them have.
//
//go:embed testdata/encrypted.txt
var encrypted string

var groups = map[string][]string{
	"@redis": {
		"password", "sentinel_password", "cloud_authentication.aws_access_key_id", "cloud_authentication.aws_assume_role_arn",
		"cloud_authentication.aws_role_session_name", "cloud_authentication.aws_secret_access_key", "cloud_authentication.azure_client_id",
		"cloud_authentication.azure_client_secret", "cloud_authentication.azure_tenant_id", "cloud_authentication.gcp_service_account_json",
	},
	"@jwk": {"d", "dp", "dq", "k", "oth", "p", "q", "qi", "r", "t"},
	"@llm": {"aws_access_key_id", "aws_secret_access_key", "azure_client_secret", "gcp_service_account_json", "header_value", "param_value"},
	"@registry": {
		"basic.username", "basic.password", "oauth2.client_id", "oauth2.client_secret", "oauth2.username", "oauth2.password",
	},
}

// Every field that Kong encrypts is hidden, in an object and in a list of objects.
func TestEncryptedFieldsAreHidden(t *testing.T) {
	n := 0
	for line := range strings.Lines(encrypted) {
		names := strings.Fields(line)
		for _, name := range names[1:] {
			fields := []string{name}
			if at := strings.Index(name, "@"); at >= 0 {
				fields = nil
				for _, f := range groups[name[at:]] {
					fields = append(fields, name[:at]+f)
				}
			}
			for _, field := range fields {
				for _, inList := range []bool{false, true} {
					n++
					secret := fmt.Sprintf("s3cr3t-%d-value", n)
					text := objectAt("config."+field, secret, inList)
					text["name"] = names[0]
					entity, err := json.Marshal(text)
					if err != nil {
						t.Fatal(err)
					}
					state := testMasker.Mask("plugins", "k", string(entity), "")
					if strings.Contains(string(state), secret) {
						t.Errorf("%s shows %s: %s", names[0], field, state)
					}
				}
			}
		}
	}
	if n < 800 {
		t.Errorf("%d fields were tried", n)
	}
}

// objectAt makes an object with a text at a path, each object on the way in a list if that
// is wanted.
func objectAt(path, text string, inList bool) map[string]any {
	name, rest, more := strings.Cut(path, ".")
	if !more {
		return map[string]any{name: text}
	}
	below := objectAt(rest, text, inList)
	if inList && name != "config" {
		return map[string]any{name: []any{below}}
	}
	return map[string]any{name: below}
}

// What Kong's schemas name and do not mark is not hidden.
func TestUnmarkedFieldsAreNotHidden(t *testing.T) {
	for plugin, fields := range map[string]map[string]any{
		"openid-connect": {
			"issuer": "https://idp.example/", "token_endpoint": "https://idp.example/token", "authorization_endpoint": "https://idp.example/authorize",
			"scopes": []any{"openid"}, "auth_methods": []any{"bearer"}, "client_auth": []any{"client_secret_basic"}, "session_storage": "redis", "token_cache_key_include_scope": true,
			"bearer_token_param_type": []any{"header"}, "credential_claim": []any{"sub"}, "consumer_by": []any{"username"}, "upstream_access_token_header": nil,
		},
		"rate-limiting":  {"minute": 5.0, "policy": "redis", "redis": map[string]any{"host": "r.internal", "port": 6379.0, "username": "kong", "database": 0.0, "ssl": true}},
		"http-log":       {"method": "POST", "timeout": 10000.0, "content_type": "application/json"},
		"aws-lambda":     {"aws_region": "eu-central-1", "function_name": "orders", "invocation_type": "Event", "timeout": 60000.0},
		"ai-proxy":       {"auth": map[string]any{"header_name": "x-key", "allow_override": false}, "model": map[string]any{"name": "gpt-4o", "options": map[string]any{"max_tokens": 512.0}}},
		"kafka-log":      {"topic": "audit", "bootstrap_servers": []any{map[string]any{"host": "k", "port": 9092.0}}, "authentication": map[string]any{"mechanism": "PLAIN", "strategy": "sasl"}},
		"saml":           {"issuer": "kong", "idp_sso_url": "https://idp.example/sso", "nameid_format": "EmailAddress", "assertion_consumer_path": "/consume"},
		"key-auth":       {"key_names": []any{"apikey"}, "key_in_header": true, "hide_credentials": false, "anonymous": nil},
		"cors":           {"headers": []any{"Accept"}, "origins": []any{"*"}, "credentials": true},
		"upstream-oauth": {"oauth": map[string]any{"token_endpoint": "https://idp.example/token", "grant_type": "client_credentials", "scopes": []any{"a"}}},
	} {
		entity, err := json.Marshal(map[string]any{"name": plugin, "config": fields}, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		if state := testMasker.Mask("plugins", "k", string(entity), ""); strings.Contains(string(state), "[secret ") {
			t.Errorf("%s: %s", plugin, state)
		}
	}
}
