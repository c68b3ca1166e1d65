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
	Text  string // what the field holds: the value, or a text with it
}

// Planting puts a secret into a new entity, puts another one in its place, and then changes
// something else.
type Planting struct {
	Secrets               [2]Secret
	DAO, Key              string
	Create, Change, Other Edit
}

// Plantings returns one for each place in which an entity can hold a secret.
func Plantings(seed uint64) []Planting {
	r := rand.New(rand.NewPCG(seed, 15))
	var all []Planting
	for _, p := range places {
		k := kindOf(p.path)
		one := Planting{DAO: k.dao, Key: UUID()}
		edit := func(method string, n int) Edit {
			fields := map[string]any{}
			if p.plugin != "" {
				fields["name"] = p.plugin
			}
			value, secret := p.value(r)
			one.Secrets[n] = secret
			put(fields, p.field, value)
			return Edit{Method: method, Path: "/" + p.path + "/" + one.Key, Body: fields}
		}
		one.Create = edit("PUT", 0)
		if k.name != "" && one.Create.Body[k.name] == nil {
			one.Create.Body[k.name] = "of-" + one.Key
		}
		one.Change = edit("PATCH", 1)
		one.Other = Edit{Method: "PATCH", Path: one.Create.Path, Body: map[string]any{"tags": []any{"touched"}}}
		all = append(all, one)
	}
	return all
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
	{path: "event-hooks", field: "config.url", around: "https://hooks.internal/*"},
	{path: "vaults", field: "config.cert_auth_cert_key", around: pem},
	{path: "services", field: "path", around: "/in?api_key=*&size=1"},
	{path: "plugins", plugin: "openid-connect", field: "config.introspection_headers_values.0"},
	{path: "plugins", plugin: "openid-connect", field: "config.cluster_cache_redis.cloud_authentication.azure_tenant_id"},
	{path: "plugins", plugin: "saml", field: "config.response_encryption_key"},
	{path: "plugins", plugin: "saml", field: "config.idp_certificate", around: "MIIC*"},
	{path: "plugins", plugin: "jwt-signer", field: "config.access_token_jwks_uri_client_password"},
	{path: "plugins", plugin: "kafka-upstream", field: "config.schema_registry.confluent.authentication.oauth2.client_id"},
	{path: "plugins", plugin: "upstream-oauth", field: "config.oauth.username"},
	{path: "plugins", plugin: "upstream-oauth", field: "config.oauth.token_post_args.assertion"},
	{path: "plugins", plugin: "solace-log", field: "config.session.properties.SESSION_X"},
	{path: "plugins", plugin: "request-callout", field: "config.callouts.0.request.headers.custom.x-team"},
	{path: "plugins", plugin: "request-transformer-advanced", field: "config.replace.querystring.0", around: "sig:*"},
	{path: "plugins", plugin: "ai-proxy-advanced", field: "config.targets.0.auth.param_value"},
	{path: "plugins", plugin: "house-made", field: "config.slack", around: "https://hooks.slack.com/services/T0/B0/*"},
	{path: "plugins", plugin: "house-made", field: "config.settings", around: `{"list":["{\"password\":\"*\"}"]}`},
	{path: "plugins", plugin: "house-made", field: "config.api_token"},
	{path: "plugins", plugin: "house-made", field: "config.nested.0.privateKey"},
}

// value makes a new secret, and what the field holds with it.
func (p place) value(r *rand.Rand) (value string, s Secret) {
	s = Secret{Value: RandomID(r.IntN), Place: strings.TrimSuffix(p.path+"/"+p.plugin, "/") + " " + p.field}
	s.Text = s.Value
	if p.around != "" {
		s.Text = strings.Replace(p.around, "*", s.Value, 1)
	}
	return s.Text, s
}

// put sets what a path leads to, and makes what is missing on the way.
func put(fields map[string]any, path string, value any) {
	name, rest, more := strings.Cut(path, ".")
	switch below, inList := strings.CutPrefix(rest, "0."); {
	case !more:
		fields[name] = value
	case rest == "0":
		fields[name] = []any{value}
	case inList:
		record := map[string]any{}
		put(record, below, value)
		fields[name] = []any{record}
	default:
		record, ok := fields[name].(map[string]any)
		if !ok {
			record = map[string]any{}
			fields[name] = record
		}
		put(record, rest, value)
	}
}
