package entities

import (
	"math/rand/v2"
	"strings"
)

// Secret is a value that a generator has put where Kong keeps a secret. It must not be
// found anywhere but in Kong.
type Secret struct {
	Value string
	Place string // plugins/openid-connect config.session_secret
}

// place is where entities hold a secret.
type place struct {
	path   string // of the kind
	plugin string // of plugins: name
	field  string // path within the entity, separated by dots; numbers are places in lists
	around string // the value, with * for the secret; only the secret if empty
}

const pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n*\n-----END PRIVATE KEY-----\n"

// places are those that Kong's schemas mark as encrypted or referenceable, that its
// documentation calls secret, or where people put secrets.
var places = []place{
	{path: "certificates", field: "key", around: pem},
	{path: "certificates", field: "key_alt", around: pem},
	{path: "key-auth", field: "key"},
	{path: "basic-auth", field: "password"},
	{path: "hmac-auth", field: "secret"},
	{path: "jwt", field: "secret"},
	{path: "oauth2", field: "client_secret"},
	{path: "rbac/users", field: "user_token", around: "$2b$09$*"},
	{path: "vaults", field: "config.token"},
	{path: "vaults", field: "config.approle_secret_id"},
	{path: "event-hooks", field: "config.secret"},
	{path: "event-hooks", field: "config.headers.authorization", around: "Bearer *"},
	{path: "keys", field: "pem.private_key", around: pem},
	{path: "keys", field: "jwk", around: `{"kty":"oct","kid":"1","k":"*"}`},
	{path: "upstreams", field: "healthchecks.active.headers.Authorization.0", around: "Basic *"},
	{path: "plugins", plugin: "openid-connect", field: "config.client_secret.0"},
	{path: "plugins", plugin: "openid-connect", field: "config.session_secret"},
	{path: "plugins", plugin: "openid-connect", field: "config.redis.password"},
	{path: "plugins", plugin: "openid-connect", field: "config.client_jwk.0.d"},
	{path: "plugins", plugin: "aws-lambda", field: "config.aws_key", around: "AKIA*"},
	{path: "plugins", plugin: "aws-lambda", field: "config.aws_secret"},
	{path: "plugins", plugin: "http-log", field: "config.headers.Authorization", around: "Bearer *"},
	{path: "plugins", plugin: "http-log", field: "config.http_endpoint", around: "https://kong:*@log.internal/in"},
	{path: "plugins", plugin: "rate-limiting", field: "config.redis.password"},
	{path: "plugins", plugin: "rate-limiting-advanced", field: "config.redis.sentinel_password"},
	{path: "plugins", plugin: "ldap-auth-advanced", field: "config.ldap_password"},
	{path: "plugins", plugin: "kafka-log", field: "config.authentication.password"},
	{path: "plugins", plugin: "confluent", field: "config.cluster_api_secret"},
	{path: "plugins", plugin: "acme", field: "config.eab_hmac_key"},
	{path: "plugins", plugin: "ai-proxy", field: "config.auth.header_value", around: "Bearer *"},
	{path: "plugins", plugin: "ai-proxy", field: "config.auth.aws_secret_access_key"},
	{path: "plugins", plugin: "ai-proxy", field: "config.auth.gcp_service_account_json", around: `{"type":"service_account","private_key":"*"}`},
	{path: "plugins", plugin: "azure-functions", field: "config.apikey"},
	{path: "plugins", plugin: "forward-proxy", field: "config.auth_password"},
	{path: "plugins", plugin: "request-transformer", field: "config.add.headers.0", around: "Authorization: Basic *"},
	{path: "plugins", plugin: "opentelemetry", field: "config.headers.x-api-key"},
	{path: "plugins", plugin: "loggly", field: "config.key"},
	{path: "plugins", plugin: "session", field: "config.secret"},
	{path: "plugins", plugin: "oauth2", field: "config.provision_key"},
	{path: "plugins", plugin: "house-made", field: "config.api_token"},
	{path: "plugins", plugin: "house-made", field: "config.nested.0.privateKey"},
}

// value makes a new secret, and what the field holds with it.
func (p place) value(r *rand.Rand) (value string, s Secret) {
	s = Secret{Value: token(r), Place: strings.TrimSuffix(p.path+"/"+p.plugin, "/") + " " + p.field}
	if p.around == "" {
		return s.Value, s
	}
	return strings.Replace(p.around, "*", s.Value, 1), s
}

func token(r *rand.Rand) string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b [32]byte
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b[:])
}

// put sets what a path leads to, and makes what is missing on the way.
func put(fields map[string]any, path, value string) {
	name, rest, more := strings.Cut(path, ".")
	if !more {
		fields[name] = value
		return
	}
	if rest == "0" {
		fields[name] = []any{value}
		return
	}
	if below, ok := strings.CutPrefix(rest, "0."); ok {
		record := map[string]any{}
		put(record, below, value)
		fields[name] = []any{record}
		return
	}
	record, ok := fields[name].(map[string]any)
	if !ok {
		record = map[string]any{}
		fields[name] = record
	}
	put(record, rest, value)
}
