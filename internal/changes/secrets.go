package changes

import (
	"regexp"
	"strings"
	"unicode"
)

// secretFields are the fields of Kong's entities that hold secrets, by kind of entity. A
// dot leads into an object, * stands for any name, ** for any number of names, and lists
// are gone into by themselves.
//
// Sources: what kong/db/schema/entities, kong/plugins/*/daos.lua and kong/plugins/*/schema.lua
// of Kong 3.9.3 mark as encrypted or referenceable; for what only Kong Gateway Enterprise
// has, the schemas of its plugins and of its Admin API's entities, from 3.4 to 3.15, as
// Kong's documentation publishes them (app/_schemas in Kong/developer.konghq.com).
// Hosts, ports, addresses, names of users and of headers that are referenceable and not
// encrypted are not secrets.
var secretFields = map[string][]string{
	"certificates":               {"key", "key_alt"},
	"keys":                       {"jwk", "pem.private_key"},
	"basicauth_credentials":      {"password"},
	"keyauth_credentials":        {"key"},
	"keyauth_enc_credentials":    {"key", "key_ident"},
	"hmacauth_credentials":       {"secret"},
	"jwt_secrets":                {"secret", "key"},
	"oauth2_credentials":         {"client_secret"},
	"oauth2_tokens":              {"access_token", "refresh_token"},
	"oauth2_authorization_codes": {"code"},
	"oauth2_jwts":                {"jwt"},
	"vault_auth_vaults":          {"vault_token"},
	"vaults":                     {"config.token", "config.access_key", "config.secret_key", "config.approle_secret_id", "config.api_key", "config.login"},
	"sessions":                   {"session_id", "data"},
	"credentials":                {"credential_data"},
	"consumer_reset_secrets":     {"secret"},
	"rbac_users":                 {"user_token", "user_token_ident"},
	"admins":                     {"rbac_user.user_token", "rbac_user.user_token_ident"},
	"developers":                 {"password"},
	"licenses":                   {"payload"},
	"event_hooks":                {"config.secret", "config.headers", "config.url"},
	"keyring_keys":               {"key", "recovery_key", "value"},
	"parameters":                 {"value"},
	"acme_storage":               {"value"},

	"plugins": { // any
		"config.**.password", "config.**.sentinel_password", "config.**.client_id", "config.**.client_secret",
		"config.**.authentication.user", "config.**.authentication.username", "config.**.authentication.*.username",
		"config.**.cloud_authentication.aws_access_key_id", "config.**.cloud_authentication.aws_secret_access_key",
		"config.**.cloud_authentication.aws_assume_role_arn", "config.**.cloud_authentication.aws_role_session_name",
		"config.**.cloud_authentication.azure_client_id", "config.**.cloud_authentication.azure_client_secret",
		"config.**.cloud_authentication.azure_tenant_id", "config.**.cloud_authentication.gcp_service_account_json",
		"config.**.cloud_authentication.oauth.username",
		"config.**.azure_client_id", "config.**.azure_tenant_id",
	},
	"partials": {"config.cloud_authentication"},

	"plugins/acme": {
		"config.account_email", "config.account_key", "config.eab_kid", "config.eab_hmac_key", "config.storage_config.consul.token", "config.storage_config.vault.token",
	},
	"plugins/ai-custom-guardrail": {"config.params", "config.request.auth.value", "config.request.body", "config.request.queries"},
	"plugins/aws-lambda":          {"config.aws_key", "config.aws_secret", "config.aws_assume_role_arn"},
	"plugins/azure-functions":     {"config.apikey", "config.clientid"},
	"plugins/datakit":             {"config.resources.vault"},
	"plugins/forward-proxy":       {"config.auth_username"},
	"plugins/http-log":            {"config.http_endpoint"},
	"plugins/ldap-auth-advanced":  {"config.ldap_password", "config.bind_dn"},
	"plugins/loggly":              {"config.key"},
	"plugins/oauth2":              {"config.provision_key"},
	"plugins/openid-connect": {
		"config.client_jwk", "config.session_secret", "config.authorization_query_args_values", "config.token_post_args_values", "config.token_headers_values",
		"config.introspection_headers_values", "config.introspection_post_args_values",
	},
	"plugins/konnect-application-auth": {
		"config.**.client_jwk", "config.**.session_secret", "config.**.authorization_query_args_values", "config.**.token_post_args_values",
		"config.**.token_headers_values", "config.**.introspection_headers_values", "config.**.introspection_post_args_values",
	},
	"plugins/opentelemetry":     {"config.traces_endpoint", "config.logs_endpoint", "config.endpoint", "config.access_logs_endpoint", "config.*.endpoint"},
	"plugins/request-callout":   {"config.**.custom", "config.**.auth_username"},
	"plugins/saml":              {"config.idp_certificate", "config.request_signing_certificate", "config.request_signing_key", "config.response_encryption_key"},
	"plugins/session":           {"config.secret"},
	"plugins/solace-consume":    {"config.session.properties", "config.flow.properties"},
	"plugins/solace-log":        {"config.session.properties"},
	"plugins/solace-upstream":   {"config.session.properties"},
	"plugins/standard-webhooks": {"config.secret_v1"},
	"plugins/upstream-oauth":    {"config.oauth.username", "config.oauth.token_headers", "config.oauth.token_post_args"},
}

// secretWords in a name tell that it holds a secret, wherever they stand in it.
var secretWords = []string{
	"password", "passwd", "passphrase", "secret", "token", "credential", "apikey", "accesskey", "privatekey", "authorization",
	"serviceaccount", "connectionstring", "sessionid", "signingkey", "encryptionkey", "headervalue", "paramvalue", "keystore", "kubeconfig",
}

// secretLast are the words that tell so where a name ends with them.
var secretLast = map[string]bool{
	"key": true, "keys": true, "pass": true, "pwd": true, "pin": true, "otp": true, "salt": true, "auth": true, "jwk": true, "jwks": true,
	"license": true, "dsn": true, "psk": true, "seed": true, "hmac": true, "bearer": true, "jwt": true,
	"passcode": true, "keyid": true, "pfx": true, "pkcs": true, "mnemonic": true, "otpauth": true,
}

// publicBefore are the words that, before key, make it one that is not a secret.
var publicBefore = map[string]bool{
	"public": true, "cache": true, "hash": true, "foreign": true, "partition": true, "routing": true, "sort": true,
	"entity": true, "unique": true, "group": true, "idempotency": true,
}

// publicAuth are the words that, before auth, make it the name of a method.
var publicAuth = map[string]bool{"client": true, "portal": true}

// plainLast end names that say something about a secret and do not hold it: key_names,
// token_expiration, secret_type.
var plainLast = map[string]bool{
	"name": true, "names": true, "type": true, "types": true, "ttl": true, "expiration": true, "expiry": true, "length": true, "size": true,
	"limit": true, "limits": true, "algorithm": true, "algorithms": true, "method": true, "methods": true, "format": true, "enabled": true,
	"required": true, "location": true, "claim": true, "claims": true, "strategy": true,
	"endpoint": true, "endpoints": true, "url": true, "urls": true, "uri": true, "uris": true, "host": true, "port": true, "path": true, // what is secret in a URL is found in its text
	"timeout": true, "lifetime": true, "duration": true, "interval": true, "leeway": true, "count": true, "issuer": true, "issuers": true, "audience": true, "alg": true,
}

// SecretName reports whether a field of this name holds a secret, judging by its name.
func SecretName(name string) bool {
	words := wordsOf(name)
	if len(words) == 0 {
		return false
	}
	if numbered := len(words) - 1; numbered > 0 && strings.Trim(words[numbered], "0123456789") == "" { // key_2
		words = words[:numbered]
	}
	last := words[len(words)-1]
	if plain := strings.TrimRight(last, "0123456789"); plain != "" { // key2
		last = plain
	}
	if plainLast[last] {
		return false
	}
	if last == "cookie" || last == "cookies" { // hash_on_cookie is the name of one
		return len(words) == 1 || words[0] == "set"
	}
	if last == "auth" && len(words) > 1 && publicAuth[words[len(words)-2]] {
		return false
	}
	if secretLast[last] && (len(words) == 1 || !publicBefore[words[len(words)-2]]) {
		return true
	}
	joined := strings.Join(words, "")
	for _, w := range secretWords {
		if strings.Contains(joined, w) {
			return true
		}
	}
	return len(words) > 2 && last == "id" && words[len(words)-2] == "key" // aws_access_key_id
}

// wordsOf splits a name such as X-Api-Key, api_key or apiKey into its words.
func wordsOf(name string) []string {
	var b strings.Builder
	before := ' '
	for _, c := range name {
		if unicode.IsUpper(c) && unicode.IsLower(before) {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
		before = c
	}
	words := strings.FieldsFunc(b.String(), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	for i := range words {
		words[i] = strings.ToLower(words[i])
	}
	return words
}

// wholeSecrets match texts that are secrets whatever their field is called. They are only
// matched against a text that contains their sign: most texts contain none, and a search
// for a fixed text costs a tenth of a match.
var wholeSecrets = []struct {
	sign  string
	match *regexp.Regexp // nil: the sign is enough
}{
	{"PRIVATE KEY-----", nil},
	{"LS0tLS1CRUdJTiB", regexp.MustCompile(`LS0tLS1CRUdJTiB[QSFEP]`)}, // -----BEGIN … in Base64
	{"AKIA", awsKeyID},
	{"ASIA", awsKeyID},
	{"sk-", platformKey},
	{"sk_", platformKey},
	{"gh", regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{20,}`)},
	{"github_pat_", regexp.MustCompile(`\bgithub_pat_`)},
	{"glpat-", regexp.MustCompile(`\bglpat-`)},
	{"xox", regexp.MustCompile(`\bxox[abeoprs]-`)},
	{"AIza", regexp.MustCompile(`\bAIza[-_0-9A-Za-z]{30,}`)},
	{"ya29.", regexp.MustCompile(`\bya29\.`)},
	{"hv", regexp.MustCompile(`\bhv[sbr]\.[-_A-Za-z0-9]{20,}`)},
	{"pat_", regexp.MustCompile(`\b[ks]pat_[A-Za-z0-9]{16,}`)},
	{"hooks.slack.com/", regexp.MustCompile(`\bhooks\.slack\.com/`)},
	{"discord", regexp.MustCompile(`\bdiscord(?:app)?\.com/api/webhooks/`)},
	{".webhook.office.com/", nil},
	{"eyJ", regexp.MustCompile(`\beyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}`)}, // a JSON Web Token
	{"", regexp.MustCompile(`^\s*(?i:bearer|basic|token|digest|apikey)\s+\S+\s*$`)},
}

var (
	awsKeyID    = regexp.MustCompile(`\bA[KS]IA[0-9A-Z]{16}\b`)
	platformKey = regexp.MustCompile(`\bsk[-_][-_A-Za-z0-9]{16,}`) // of OpenAI, Stripe and others
)

// wholeSecret reports whether a text is a secret whatever its field is called.
func wholeSecret(text string) bool {
	for _, w := range wholeSecrets {
		if strings.Contains(text, w.sign) && (w.match == nil || w.match.MatchString(text)) {
			return true
		}
	}
	return false
}

// Secrets within a text. The last group of each is the secret.
var (
	partSecrets = []*regexp.Regexp{
		regexp.MustCompile(`://[^/?#\s@:]*:([^/?#\s@]+)@`),                                  // https://user:password@host
		regexp.MustCompile(`([-_A-Za-z0-9.]+)=([^&;\s"',)]+)`),                              // ?api_key=…
		regexp.MustCompile(`(?m)["']?([-_A-Za-z0-9.]+)["']?\s*[:=]=?\s*["']([^"'\n]+)["']`), // secret = "…"
	}
	headerLine = regexp.MustCompile(`^\s*([-_A-Za-z0-9.]+)\s*[:=]\s*(.+)$`) // X-Api-Key: …
)
