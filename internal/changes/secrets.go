package changes

import (
	"regexp"
	"strings"
	"unicode"
)

// secretFields are the fields of Kong's entities that hold secrets, by kind of entity. A
// dot leads into an object, and lists are gone into by themselves.
//
// Sources: what kong/db/schema/entities, kong/plugins/*/daos.lua and kong/plugins/*/schema.lua
// of Kong 3.9.3 mark as encrypted or referenceable, and, for what only Kong Gateway
// Enterprise has, the entities of its Admin API's reference. Host and user names that are
// referenceable are no secrets.
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
		"config.redis.password", "config.redis.sentinel_password", "config.redis.cloud_authentication",
	},
	"plugins/acme": {
		"config.account_email", "config.eab_kid", "config.eab_hmac_key", "config.storage_config.consul.token",
		"config.storage_config.vault.token", "config.storage_config.redis.password",
	},
	"plugins/aws-lambda":         {"config.aws_key", "config.aws_secret", "config.aws_assume_role_arn"},
	"plugins/azure-functions":    {"config.apikey", "config.clientid"},
	"plugins/http-log":           {"config.http_endpoint"},
	"plugins/kafka-log":          {"config.authentication.user", "config.authentication.password"},
	"plugins/kafka-upstream":     {"config.authentication.user", "config.authentication.password"},
	"plugins/ldap-auth-advanced": {"config.ldap_password", "config.bind_dn"},
	"plugins/loggly":             {"config.key"},
	"plugins/oauth2":             {"config.provision_key"},
	"plugins/openid-connect": {
		"config.client_id", "config.client_secret", "config.client_jwk", "config.session_secret",
		"config.authorization_query_args_values", "config.token_post_args_values", "config.token_headers_values",
		"config.introspection_headers_values", "config.introspection_post_args_values",
	},
	"plugins/opentelemetry":     {"config.traces_endpoint", "config.logs_endpoint", "config.endpoint"},
	"plugins/session":           {"config.secret"},
	"plugins/standard-webhooks": {"config.secret_v1"},
}

// secretWords in a name tell that it holds a secret, wherever they stand in it.
var secretWords = []string{
	"password", "passwd", "passphrase", "secret", "token", "credential", "apikey", "accesskey", "privatekey", "authorization",
	"serviceaccount", "connectionstring", "sessionid", "signingkey", "encryptionkey", "headervalue", "paramvalue",
}

// secretLast are the words that tell so where a name ends with them.
var secretLast = map[string]bool{
	"key": true, "keys": true, "pass": true, "pwd": true, "pin": true, "otp": true, "salt": true, "auth": true, "jwk": true, "jwks": true,
	"license": true, "dsn": true, "psk": true, "seed": true, "hmac": true, "bearer": true, "jwt": true,
	"passcode": true, "keyid": true,
}

// publicBefore are the words that, before key, make it one that is no secret.
var publicBefore = map[string]bool{
	"public": true, "cache": true, "hash": true, "primary": true, "foreign": true, "partition": true, "routing": true, "sort": true,
	"entity": true, "unique": true, "group": true, "idempotency": true,
}

// plainLast end names that say something about a secret and do not hold it: key_names,
// token_expiration, secret_type.
var plainLast = map[string]bool{
	"name": true, "names": true, "type": true, "types": true, "ttl": true, "expiration": true, "expiry": true, "length": true, "size": true,
	"limit": true, "limits": true, "algorithm": true, "algorithms": true, "method": true, "methods": true, "format": true, "enabled": true,
	"required": true, "location": true, "claim": true, "claims": true, "strategy": true,
}

// SecretName reports whether a field of this name holds a secret, as far as its name tells.
func SecretName(name string) bool {
	words := wordsOf(name)
	if len(words) == 0 {
		return false
	}
	last := words[len(words)-1]
	if plainLast[last] {
		return false
	}
	if last == "cookie" || last == "cookies" { // hash_on_cookie is the name of one
		return len(words) == 1 || words[0] == "set"
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
	return len(words) > 2 && words[len(words)-1] == "id" && words[len(words)-2] == "key" // aws_access_key_id
}

// wordsOf splits a name such as X-Api-Key, api_key or apiKey into its words.
func wordsOf(name string) (words []string) {
	var word []rune
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	var before rune
	for _, c := range name {
		switch {
		case !unicode.IsLetter(c) && !unicode.IsDigit(c):
			flush()
		case unicode.IsUpper(c) && unicode.IsLower(before):
			flush()
			word = append(word, c)
		default:
			word = append(word, c)
		}
		before = c
	}
	flush()
	return words
}

// Texts that hold a secret whatever their field is called. The last group of each is the secret.
var (
	wholeSecret = regexp.MustCompile(`PRIVATE KEY-----|LS0tLS1CRUdJTiB[QSFEP]|\bAKIA[0-9A-Z]{16}\b|\bsk-[-_A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[abpr]-|^\s*(?i:bearer|basic|token|digest|apikey)\s+\S+\s*$|\beyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}`)
	partSecrets = []*regexp.Regexp{
		regexp.MustCompile(`://[^/?#\s@:]*:([^/?#\s@]+)@`),                                  // https://user:password@host
		regexp.MustCompile(`([-_A-Za-z0-9.]+)=([^&;\s"',)]+)`),                              // ?api_key=…
		regexp.MustCompile(`(?m)["']?([-_A-Za-z0-9.]+)["']?\s*[:=]=?\s*["']([^"'\n]+)["']`), // secret = "…"
	}
	headerLine = regexp.MustCompile(`^\s*([-_A-Za-z0-9.]+)\s*[:=]\s*(.+)$`) // X-Api-Key: …
)
