// Package config reads all settings of the relay, from flags, variables, files and
// Secrets Manager, by one table, and checks them.
package config

import (
	"crypto/rsa"
	"crypto/tls"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/secret"
)

// Headlines of the table, in the order in which help and README show them.
const (
	groupKong        = "Kong"
	groupLedger      = "Ledger"
	groupDestination = "Destination"
	groupPasses      = "Passes"
	groupTriggers    = "Triggers"
	groupRunning     = "Running"
)

// ShortList returns the names of the settings that most installations set.
func ShortList() []string {
	return []string{
		"kong-admin-api", "kong-superadmin", "kong-admin-token-file", "kong-root-ca", "redis-host", "redis-password-file", "ledger",
		"log-group", "channel-arn", "region", "listen", "trigger-secret-file", "ops-listen", "schedule", "redact",
	}
}

// Settings is everything that flags and variables say, checked. What it holds
// is ready to use; nothing was contacted to make it.
type Settings struct {
	// Kong

	KongAdminAPI      string           // as configured
	KongSendToken     bool             // KONG_SUPERADMIN
	KongToken         secret.Secret    // may be set even if it is not to be sent
	KongRootCA        []byte           // PEM, or nil
	KongClientCert    *tls.Certificate // nil if there is none
	KongTLSServerName string
	KongTimeout       time.Duration
	PageSize          int            // 1 to 1000
	Canary            time.Duration  // between two canary reads, 0 for none
	AuditPublicKey    *rsa.PublicKey // nil if signatures are not to be checked

	// Ledger

	Source                string
	Adopt                 bool
	LedgerFile            string   // of bbolt; "" is Redis
	RedisAddrs            []string // host or host:port, at least one
	RedisDB               int
	RedisUsername         string
	RedisPassword         secret.Secret
	RedisTLS              bool
	RedisCA               []byte // PEM, or nil
	RedisCluster          bool
	RedisSentinelMaster   string
	RedisSentinelUsername string
	RedisSentinelPassword secret.Secret
	RedisTLSServerName    string
	RedisPrefix           string
	RecordTTL             time.Duration

	// Destination

	Destination    Destination // "" if none is set, where none is needed
	JSONLFile      string      // for ToJSONL; "-" is standard output
	ChannelARN     string
	AccountID      string // of the channel, else of the log group's ARN, else ""
	Region         string // "" only where no destination needs it
	ExternalID     string
	EventDataStore string // id, or "" if it is not to be asked
	LogGroup       string // a name, also if an ARN was given
	LogStream      string
	PutRate        int // calls a second
	PutConcurrency int
	RetryFor       time.Duration
	Redact         []string // dotted JSON paths
	EventFormat    string   // cloudtrail or ocsf
	ErrorCodes     bool
	SkipOwnReads   bool
	Objects        bool // say what requests changed

	// Passes and triggers

	Schedule         time.Duration // between two reconciles
	StartAt          time.Time     // entries older than this are left out; zero delivers everything
	LeaseWait        time.Duration
	Listen           string        // "" if no listener is wanted
	TriggerSecret    secret.Secret // one or more, separated by commas: see SplitSecrets
	EventHooksSecret secret.Secret
	HTTPLogSecret    secret.Secret
	TriggerRate      int // triggers a second
	Debounce         time.Duration

	// Running

	OpsListen     string // "" if no listener is wanted
	EMF           bool   // serve writes metrics for CloudWatch to standard output
	LogLevel      slog.Level
	LogFormat     string // auto, json or text
	SecretRefresh time.Duration

	// Warnings are for the log: settings that are allowed and look like a mistake.
	Warnings []string

	aws     *awscall.Configs
	inForce []InForce
	secrets map[string]secret.Secret // those that are set, by name
}

// table is the one list of settings. Names without RELAY_ are those of
// the integration that came before this one, and keep their meaning.
func table() []setting {
	return []setting{
		{name: "kong-admin-api", env: "KONG_ADMIN_API", group: groupKong, value: "url", example: "http://localhost:8001", onPage: true,
			help: "address of Kong's Admin API, with its path if it has one; the API itself, not a route of the gateway",
			set:  adminAPI},
		{name: "kong-superadmin", env: "KONG_SUPERADMIN", group: groupKong, def: "false", onPage: true,
			help: "send the token (a user with read access to `/audit/requests` is enough)",
			set:  toggle(func(s *Settings) *bool { return &s.KongSendToken })},
		{name: "kong-admin-token", env: "KONG_ADMIN_TOKEN", group: groupKong, secret: true, onPage: true,
			help:        "the RBAC token for the `Kong-Admin-Token` header",
			setSecret:   func(s *Settings, v secret.Secret) { s.KongToken = v },
			checkSecret: headerText},
		{name: "kong-root-ca", env: "KONG_ROOT_CA", group: groupKong, value: "pem",
			help: "certificates of authorities that may have signed Kong's, or Kong's own, which is then trusted for any name: PEM text or the path of a PEM file; `\\n` in the text is a new line",
			set:  certificates(func(s *Settings) *[]byte { return &s.KongRootCA })},
		{name: "kong-client-cert", env: "RELAY_KONG_CLIENT_CERT", group: groupKong, value: "file", example: "client.crt",
			help: "PEM file of the certificate to show to Kong",
			set:  fileContent(func(l *loader) *[]byte { return &l.clientCert })},
		{name: "kong-client-key", env: "RELAY_KONG_CLIENT_KEY", group: groupKong, value: "file", example: "client.key",
			help: "PEM file of that certificate's key",
			set:  fileContent(func(l *loader) *[]byte { return &l.clientKey })},
		{name: "kong-tls-server-name", env: "RELAY_KONG_TLS_SERVER_NAME", group: groupKong, value: "name", example: "kong.internal",
			help: "name that Kong's certificate is for, where it is not the one in the address",
			set:  text(func(s *Settings) *string { return &s.KongTLSServerName }, token(1, 253, ".-"), "a host name")},
		{name: "kong-timeout", env: "RELAY_KONG_TIMEOUT", group: groupKong, value: "duration", def: "60s", onPage: true,
			help: "longest wait for a page, all attempts included; Kong takes 30s to say that its database is down",
			set:  duration(func(s *Settings) *time.Duration { return &s.KongTimeout }, time.Second, 10*time.Minute)},
		{name: "page-size", env: "RELAY_PAGE_SIZE", group: groupKong, value: "n", def: "1000",
			help: "entries in a page, at most",
			set:  number(func(s *Settings) *int { return &s.PageSize }, 1, 1000)},
		{name: "canary", env: "RELAY_CANARY", group: groupKong, value: "duration", def: "15m",
			help: "how long Kong may record nothing before serve asks it for `GET /` and looks for that entry, or `off`; turn it off where Kong ignores reads",
			set:  orOff(duration(func(s *Settings) *time.Duration { return &s.Canary }, 10*time.Second, 24*time.Hour))},
		{name: "audit-public-key", env: "RELAY_AUDIT_PUBLIC_KEY", group: groupKong, value: "pem",
			help: "public key that belongs to Kong's `audit_log_signing_key`, as PEM text or path: signatures are checked, and the result is in the event",
			set:  publicKey},

		{name: "ledger", env: "RELAY_LEDGER", group: groupLedger, value: "ledger", def: "redis", onPage: true,
			help: "`redis`, or `bolt:<file>` for one relay without Redis",
			set:  ledgerKind},
		{name: "source", env: "RELAY_SOURCE", group: groupLedger, value: "name", def: "kong", onPage: true,
			help: "name of this gateway in the ledger; each gateway that shares a Redis and a destination with another needs its own",
			// No braces: they would move the hash tag of Redis's keys.
			set: text(func(s *Settings) *string { return &s.Source }, token(1, 64, "._-"), "1 to 64 letters, digits and any of . _ -")},
		{name: "adopt", env: "RELAY_ADOPT", group: groupLedger, def: "false",
			help: "take over a ledger that was made with another `KONG_ADMIN_API`, because it is the same gateway at a new address",
			set:  toggle(func(s *Settings) *bool { return &s.Adopt })},
		{name: "redis-host", env: "REDIS_HOST", group: groupLedger, value: "host:port", def: "localhost:6379",
			help: "address of Redis or Valkey; several, separated by commas, for a cluster's nodes or Sentinels",
			set:  redisAddrs},
		{name: "redis-db", env: "REDIS_DB", group: groupLedger, value: "n", def: "0",
			help: "number of the database",
			set:  number(func(s *Settings) *int { return &s.RedisDB }, 0, 1<<20)},
		{name: "redis-username", env: "REDIS_USERNAME", group: groupLedger, value: "name",
			help: "ACL user",
			set:  text(func(s *Settings) *string { return &s.RedisUsername }, nil, "")},
		{name: "redis-password", env: "REDIS_PASSWORD", group: groupLedger, secret: true,
			help:      "the password for Redis",
			setSecret: func(s *Settings, v secret.Secret) { s.RedisPassword = v }},
		{name: "redis-tls", env: "RELAY_REDIS_TLS", group: groupLedger, def: "false", onPage: true,
			help: "speak TLS to Redis",
			set:  toggle(func(s *Settings) *bool { return &s.RedisTLS }), follows: func(s *Settings) string { return strconv.FormatBool(s.RedisTLS) }},
		{name: "redis-ca", env: "RELAY_REDIS_CA", group: groupLedger, value: "pem",
			help: "certificates that Redis's may be signed by, as PEM text or path; turns on `--redis-tls`",
			set:  certificates(func(s *Settings) *[]byte { return &s.RedisCA })},
		{name: "redis-tls-server-name", env: "RELAY_REDIS_TLS_SERVER_NAME", group: groupLedger, value: "name", example: "redis.internal",
			help: "name that Redis's certificate is for, where it is not the one in `REDIS_HOST`; turns on `--redis-tls`",
			set:  text(func(s *Settings) *string { return &s.RedisTLSServerName }, token(1, 253, ".-"), "a host name")},
		{name: "redis-cluster", env: "RELAY_REDIS_CLUSTER", group: groupLedger, def: "false",
			help: "one address stands for a cluster (ElastiCache's configuration endpoint, or Serverless)",
			set:  toggle(func(s *Settings) *bool { return &s.RedisCluster })},
		{name: "redis-sentinel-master", env: "RELAY_REDIS_SENTINEL_MASTER", group: groupLedger, value: "name",
			help: "name of the master; the addresses are then Sentinels",
			set:  text(func(s *Settings) *string { return &s.RedisSentinelMaster }, nil, "")},
		{name: "redis-sentinel-username", env: "RELAY_REDIS_SENTINEL_USERNAME", group: groupLedger, value: "name",
			help: "ACL user of the Sentinels",
			set:  text(func(s *Settings) *string { return &s.RedisSentinelUsername }, nil, "")},
		{name: "redis-sentinel-password", env: "RELAY_REDIS_SENTINEL_PASSWORD", group: groupLedger, secret: true,
			help:      "the Sentinels' password, where they have one and it is not that of Redis",
			setSecret: func(s *Settings, v secret.Secret) { s.RedisSentinelPassword = v }},
		{name: "redis-prefix", env: "RELAY_REDIS_PREFIX", group: groupLedger, value: "text", def: "relay",
			help: "start of the name of every key",
			set:  text(func(s *Settings) *string { return &s.RedisPrefix }, token(1, 64, "._:-"), "1 to 64 letters, digits and any of . _ : -")},
		{name: "record-ttl", env: "RELAY_RECORD_TTL", group: groupLedger, value: "seconds", def: "2592000",
			help: "Kong's `audit_log_record_ttl`, for entries that do not say how long Kong keeps them",
			set:  seconds(func(s *Settings) *time.Duration { return &s.RecordTTL }, time.Minute, 10*365*24*time.Hour)},

		{name: "destination", env: "RELAY_DESTINATION", group: groupDestination, value: "destination", example: "jsonl:/var/log/kong-audit.jsonl", onPage: true,
			help: "`cloudwatch` (CloudWatch Logs), `cloudtrail` (CloudTrail Lake), or `jsonl:<file>` (`jsonl:-` for standard output); without it, `--log-group` means the first and `--channel-arn` the second",
			set:  destination, follows: func(s *Settings) string { return string(s.Destination) }},
		{name: "log-group", env: "RELAY_LOG_GROUP", group: groupDestination, value: "name", example: "/kong/audit",
			help: "the log group of CloudWatch Logs, by name or ARN; it must exist",
			set:  logGroup},
		{name: "log-stream", env: "RELAY_LOG_STREAM", group: groupDestination, value: "name", def: "kong",
			help: "the log stream in that group; created if it is missing",
			set:  text(func(s *Settings) *string { return &s.LogStream }, streamName, "1 to 512 characters without : and *")},
		{name: "region", env: "REGION", group: groupDestination, value: "region", example: "eu-central-1",
			help: "AWS Region of the destination; else `AWS_REGION`, else the one in the ARN",
			set:  text(func(s *Settings) *string { return &s.Region }, token(3, 64, "-"), "the name of an AWS Region"), follows: func(s *Settings) string { return s.Region }},
		{name: "channel-arn", env: "CHANNEL_ARN", group: groupDestination, value: "arn",
			example: "arn:aws:cloudtrail:eu-central-1:123456789012:channel/11111111-2222-3333-4444-555555555555",
			help:    "the CloudTrail Lake channel",
			set:     channelARN},
		{name: "external-id", env: "RELAY_EXTERNAL_ID", group: groupDestination, value: "id",
			help: "external id, if the channel's policy asks for one",
			set:  text(func(s *Settings) *string { return &s.ExternalID }, token(2, 1224, "_+=,.@:/-"), "2 to 1224 letters, digits and any of _ + = , . @ : / -")},
		{name: "event-data-store", env: "RELAY_EVENT_DATA_STORE", group: groupDestination, value: "id",
			example: "11111111-2222-3333-4444-555555555555",
			help:    "the event data store behind the channel, by id or ARN: `relay verify` asks it what has arrived",
			set:     eventDataStore},
		{name: "put-rate", env: "RELAY_PUT_RATE", group: groupDestination, value: "n", def: "92", onPage: true,
			help: "calls a second at most; AWS allows CloudTrail Lake 100 for an account and Region",
			set:  number(func(s *Settings) *int { return &s.PutRate }, 1, 10_000)},
		{name: "put-concurrency", env: "RELAY_PUT_CONCURRENCY", group: groupDestination, value: "n", def: "8", onPage: true,
			help: "calls in flight at most; a tail beside a reconcile has two more",
			set:  number(func(s *Settings) *int { return &s.PutConcurrency }, 1, 64)},
		{name: "retry-for", env: "RELAY_RETRY_FOR", group: groupDestination, value: "duration", def: "2m", onPage: true,
			help: "how long a batch is retried before it is deferred",
			set:  duration(func(s *Settings) *time.Duration { return &s.RetryFor }, time.Second, time.Hour)},
		{name: "redact", env: "RELAY_REDACT", group: groupDestination, value: "paths", example: "config.api_key,credentials.value", onPage: true,
			help: "dotted paths, separated by commas, whose values are replaced in payloads and query strings before anything leaves; `@secrets` names all that Kong keeps secret; a payload that is not strict JSON is withheld whole",
			set:  redactPaths},
		{name: "event-format", env: "RELAY_EVENT_FORMAT", group: groupDestination, value: "format", def: "cloudtrail",
			help: "`cloudtrail`, or `ocsf` (OCSF 1.8.0, class API Activity) for `cloudwatch` and `jsonl`",
			set:  text(func(s *Settings) *string { return &s.EventFormat }, oneOf("cloudtrail", "ocsf"), "cloudtrail or ocsf")},
		{name: "error-codes", env: "RELAY_ERROR_CODES", group: groupDestination, def: "false",
			help: "set errorCode in events of requests that Kong answered with 400 or more",
			set:  toggle(func(s *Settings) *bool { return &s.ErrorCodes })},
		{name: "skip-own-reads", env: "RELAY_SKIP_OWN_READS", group: groupDestination, def: "false", onPage: true,
			help: "leave out the entries that Kong wrote about the relay's own reads; they are counted",
			set:  toggle(func(s *Settings) *bool { return &s.SkipOwnReads })},
		{name: "objects", env: "RELAY_OBJECTS", group: groupDestination, def: "false", onPage: true,
			help: "say in each event what the request changed, from what to what, without secrets; reads `/audit/objects` as well, and a write waits for what it changed: about half a second; an update 2 s, until every write has been announced for ten minutes",
			set:  toggle(func(s *Settings) *bool { return &s.Objects })},

		{name: "schedule", env: "RELAY_SCHEDULE", group: groupPasses, value: "duration", def: "1h", onPage: true,
			help: "time from one reconcile to the next; `@hourly` and `@daily` work too",
			set:  schedule},
		{name: "start-at", env: "RELAY_START_AT", group: groupPasses, value: "time", example: "2026-01-31, 2026-01-31T12:00:00Z or 1769860800",
			help: "leave out what is older than this: a date (UTC), a time, or Unix seconds; without it, all that Kong holds is delivered",
			set:  startAt},
		{name: "lease-wait", env: "RELAY_LEASE_WAIT", group: groupPasses, value: "duration", def: "30s",
			help: "how long `relay once` waits for the lease while another relay makes a pass",
			set:  duration(func(s *Settings) *time.Duration { return &s.LeaseWait }, 0, time.Hour)},

		{name: "listen", env: "RELAY_LISTEN", group: groupTriggers, value: "host:port", def: "127.0.0.1:8080", onPage: true,
			help: "address that takes triggers, or `off`; anything but loopback needs a trigger secret",
			set:  listener(func(s *Settings) *string { return &s.Listen })},
		{name: "trigger-secret", env: "RELAY_TRIGGER_SECRET", group: groupTriggers, secret: true, onPage: true,
			help:        "the secret that the plugin signs with (`whsec_` and base64); several, separated by commas, while it is rotated",
			setSecret:   func(s *Settings, v secret.Secret) { s.TriggerSecret = v },
			checkSecret: webhookSecrets},
		{name: "event-hooks-secret", env: "RELAY_EVENT_HOOKS_SECRET", group: groupTriggers, secret: true,
			help:      "the secret of Kong's event hooks",
			setSecret: func(s *Settings, v secret.Secret) { s.EventHooksSecret = v }},
		{name: "http-log-secret", env: "RELAY_HTTP_LOG_SECRET", group: groupTriggers, secret: true,
			help:      "the password that Kong's http-log plugin sends to `/v1/http-log`",
			setSecret: func(s *Settings, v secret.Secret) { s.HTTPLogSecret = v }},
		{name: "trigger-rate", env: "RELAY_TRIGGER_RATE", group: groupTriggers, value: "n", def: "50",
			help: "triggers accepted a second, at most",
			set:  number(func(s *Settings) *int { return &s.TriggerRate }, 1, 100_000)},
		{name: "debounce", env: "RELAY_DEBOUNCE", group: groupTriggers, value: "duration", def: "30ms",
			help: "how long the first trigger waits for others",
			set:  duration(func(s *Settings) *time.Duration { return &s.Debounce }, 0, 10*time.Second)},

		{name: "ops-listen", env: "RELAY_OPS_LISTEN", group: groupRunning, value: "host:port", def: "127.0.0.1:9090", onPage: true,
			help: "address of the status page, `/status`, `/healthz`, `/readyz` and `/metrics`, or `off`",
			set:  listener(func(s *Settings) *string { return &s.OpsListen })},
		{name: "emf", env: "RELAY_EMF", group: groupRunning, def: "false",
			help: "let serve write the metrics that alarms of CloudWatch need to standard output each minute, in the embedded metric format",
			set:  toggle(func(s *Settings) *bool { return &s.EMF })},
		{name: "log-level", env: "RELAY_LOG_LEVEL", group: groupRunning, value: "level", def: "info",
			help: "`debug`, `info`, `warn` or `error`",
			set:  logLevel},
		{name: "log-format", env: "RELAY_LOG_FORMAT", group: groupRunning, value: "format", def: "auto",
			help: "`json`, `text`, or `auto` (text on a terminal, else JSON)",
			set:  text(func(s *Settings) *string { return &s.LogFormat }, oneOf("auto", "json", "text"), "auto, json or text")},
		{name: "secret-refresh", env: "RELAY_SECRET_REFRESH", group: groupRunning, value: "duration", def: "5m",
			help: "how long a secret from a file or Secrets Manager is kept before it is read again",
			set:  duration(func(s *Settings) *time.Duration { return &s.SecretRefresh }, 5*time.Second, 24*time.Hour)},
	}
}

// setting is a row of the one table that flags, variables, defaults, help and
// relay/README.md's tables come from.
type setting struct {
	name    string // of the flag, without its dashes
	env     string // the variable
	group   string // the headline in help and README
	help    string // a sentence, without a full stop; literals in backquotes, which only the README shows
	value   string // what stands for the value in help; "" for a switch
	def     string // the default, as text; "" if there is none
	example string
	onPage  bool // the status page shows it
	// follows returns what other settings decide where it is not set. It may be nil.
	follows func(*Settings) string
	secret  bool // has no flag for the text itself, as ps would show it
	// set reads the text into Settings. Its error is made by expected.
	set func(l *loader, s *Settings, text string) error
	// setSecret does so for a secret.
	setSecret func(s *Settings, text secret.Secret)
	// checkSecret reports why a text cannot be the secret. If it is nil, any text can.
	checkSecret func(text string) error
}

// Flag is a flag on the command line and the variable that it beats.
type Flag struct {
	Name    string // without its dashes
	Env     string // the variable
	Group   string // the headline in help
	Help    string // a sentence, without a full stop
	Value   string // what stands for the value in help; "" for a switch
	Default string // as text; "" if there is none
}

// Flags returns the flags of all settings, in the order of the table.
func Flags() []Flag {
	var flags []Flag
	for _, row := range table() {
		flags = append(flags, row.flags()...)
	}
	return flags
}

// Variables returns the variables of all settings, in the order of the table.
func Variables() []string {
	var names []string
	for _, row := range table() {
		if row.secret {
			names = append(names, row.env)
		}
		for _, f := range row.flags() {
			names = append(names, f.Env)
		}
	}
	return names
}

// plainHelp returns the help as messages and the command line show it.
func (s setting) plainHelp() string { return strings.ReplaceAll(s.help, "`", "") }

// IsSwitch reports whether the flag takes no value.
func (f Flag) IsSwitch() bool { return f.Value == "" }

// flags returns the setting's flags: one, or for a secret those that say where it is.
func (s setting) flags() []Flag {
	help := s.plainHelp()
	if !s.secret {
		return []Flag{{s.name, s.env, s.group, help, s.value, s.def}}
	}
	return []Flag{
		{s.name + "-file", s.env + "_FILE", s.group, "file that holds " + help + " (or the text itself in " + s.env + ")", "file", ""},
		{s.name + "-secret-arn", s.env + "_SECRET_ARN", s.group, "secret in Secrets Manager that holds " + help, "arn", ""},
	}
}

// String returns the flag and its variable as messages name them.
func (f Flag) String() string { return "--" + f.Name + " (" + f.Env + ")" }

// rowNamed returns the row of a name, which must be in the table.
func rowNamed(name string) setting {
	rows := table()
	return rows[slices.IndexFunc(rows, func(row setting) bool { return row.name == name })]
}
