// Package config reads all settings of the relay, from flags, variables, files and
// Secrets Manager, by one table, and checks them.
package config

import (
	"cmp"
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
	PutRate        int // calls to CloudTrail Lake a second
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
}

// table is the one list of settings. Names without RELAY_ are those of
// the integration that came before this one, and keep their meaning.
func (l *loader) table() []setting {
	rows := l.rows()
	for i := range rows {
		rows[i].group = cmp.Or(rows[i].group, rows[max(i-1, 0)].group)
	}
	return rows
}

// rows are the rows of the table. A row without a group belongs to the group of the row before.
func (l *loader) rows() []setting {
	s := &l.settings
	return []setting{
		{group: "Kong", name: "kong-admin-api", env: "KONG_ADMIN_API", value: "url", onPage: true, example: "http://localhost:8001",
			set:  l.adminAPI,
			help: "address of Kong's Admin API, with its path if it has one; the API itself, not a route of the gateway"},
		{name: "kong-superadmin", env: "KONG_SUPERADMIN", def: "false", onPage: true, set: toggle(&s.KongSendToken),
			help: "send the token (a user with read access to `/audit/requests` is enough)"},
		{name: "kong-admin-token", env: "KONG_ADMIN_TOKEN", onPage: true, secret: &s.KongToken, checkSecret: headerText,
			help: "the RBAC token for the `Kong-Admin-Token` header"},
		{name: "kong-root-ca", env: "KONG_ROOT_CA", value: "pem", set: l.certificates(&s.KongRootCA),
			help: "certificates of the authorities that may have signed Kong's certificate, or that certificate itself, which is then trusted for any name: PEM text or the path of a PEM file; `\\n` in the text is a new line"},
		{name: "kong-client-cert", value: "file", example: "client.crt", set: l.fileContent(&l.clientCert),
			help: "PEM file of the certificate to show to Kong"},
		{name: "kong-client-key", value: "file", example: "client.key", set: l.fileContent(&l.clientKey),
			help: "PEM file of that certificate's key"},
		{name: "kong-tls-server-name", value: "name", example: "kong.internal",
			set:  text(&s.KongTLSServerName, token(1, 253, ".-"), "a host name"),
			help: "name that Kong's certificate is for, if it is not the one in the address"},
		{name: "kong-timeout", value: "duration", def: "60s", onPage: true, set: duration(&s.KongTimeout, time.Second, 10*time.Minute),
			help: "longest wait for a page, all attempts included; Kong takes 30s to say that its database is down"},
		{name: "page-size", value: "n", def: "1000", set: number(&s.PageSize, 1, 1000),
			help: "entries in a page, at most"},
		{name: "canary", value: "duration", def: "15m", set: orOff(duration(&s.Canary, 10*time.Second, 24*time.Hour)),
			help: "how long Kong may record nothing before serve asks it for `GET /` and looks for that entry, or `off`; turn it off where Kong ignores reads"},
		{name: "audit-public-key", value: "pem", set: l.publicKey,
			help: "public key that belongs to Kong's `audit_log_signing_key`, as PEM text or path: signatures are checked, and the result is in the event"},

		{group: "Ledger", name: "ledger", value: "ledger", def: "redis", onPage: true, set: l.ledgerKind,
			help: "`redis`, or `bolt:<file>` for one relay without Redis"},
		// No braces: they would move the hash tag of Redis's keys.
		{name: "source", value: "name", def: "kong", onPage: true,
			set:  text(&s.Source, token(1, 64, "._-"), "1 to 64 letters, digits and any of . _ -"),
			help: "name of this gateway in the ledger; each gateway that shares a Redis and a destination with another needs its own"},
		{name: "adopt", def: "false", set: toggle(&s.Adopt),
			help: "take over a ledger that was made with another `KONG_ADMIN_API`, because it is the same gateway at a new address"},
		{name: "redis-host", env: "REDIS_HOST", value: "host:port", def: "localhost:6379", set: l.redisAddrs,
			help: "address of Redis or Valkey; several, separated by commas, for a cluster's nodes or Sentinels"},
		{name: "redis-db", env: "REDIS_DB", value: "n", def: "0", set: number(&s.RedisDB, 0, 1<<20),
			help: "number of the database"},
		{name: "redis-username", env: "REDIS_USERNAME", value: "name", set: text(&s.RedisUsername, nil, ""),
			help: "ACL user"},
		{name: "redis-password", env: "REDIS_PASSWORD", secret: &s.RedisPassword,
			help: "the password for Redis"},
		{name: "redis-tls", def: "false", onPage: true,
			set: toggle(&s.RedisTLS), follows: func() string { return strconv.FormatBool(s.RedisTLS) },
			help: "speak TLS to Redis"},
		{name: "redis-ca", value: "pem", set: l.certificates(&s.RedisCA),
			help: "certificates of the authorities that may have signed Redis's certificate, as PEM text or path; turns on `--redis-tls`"},
		{name: "redis-tls-server-name", value: "name", example: "redis.internal",
			set:  text(&s.RedisTLSServerName, token(1, 253, ".-"), "a host name"),
			help: "name that Redis's certificate is for, if it is not the one in `REDIS_HOST`; turns on `--redis-tls`"},
		{name: "redis-cluster", def: "false", set: toggle(&s.RedisCluster),
			help: "one address stands for a cluster (ElastiCache's configuration endpoint, or Serverless)"},
		{name: "redis-sentinel-master", value: "name", set: text(&s.RedisSentinelMaster, nil, ""),
			help: "name of the master; the addresses are then Sentinels"},
		{name: "redis-sentinel-username", value: "name", set: text(&s.RedisSentinelUsername, nil, ""),
			help: "ACL user of the Sentinels"},
		{name: "redis-sentinel-password", secret: &s.RedisSentinelPassword,
			help: "the Sentinels' password, if they have one that is not that of Redis"},
		{name: "redis-prefix", value: "text", def: "relay",
			set:  text(&s.RedisPrefix, token(1, 64, "._:-"), "1 to 64 letters, digits and any of . _ : -"),
			help: "start of the name of every key"},
		{name: "record-ttl", value: "seconds", def: "2592000", set: seconds(&s.RecordTTL, time.Minute, 10*365*24*time.Hour),
			help: "Kong's `audit_log_record_ttl`, for entries that do not say how long Kong keeps them"},

		{group: "Destination", name: "destination", value: "destination", onPage: true, example: "jsonl:/var/log/kong-audit.jsonl",
			set: l.destination, follows: func() string { return string(s.Destination) },
			help: "`cloudwatch` (CloudWatch Logs), `cloudtrail` (CloudTrail Lake), or `jsonl:<file>` (`jsonl:-` for standard output); without it, `--log-group` means the first and `--channel-arn` the second"},
		{name: "log-group", value: "name", example: "/kong/audit", set: l.logGroup,
			help: "the log group of CloudWatch Logs, by name or ARN; it must exist"},
		{name: "log-stream", value: "name", def: "kong", set: text(&s.LogStream, streamName, "1 to 512 characters without : and *"),
			help: "the log stream in that group; created if it is missing"},
		{name: "region", env: "REGION", value: "region", example: "eu-central-1",
			set: text(&s.Region, token(3, 64, "-"), "the name of an AWS Region"), follows: func() string { return s.Region },
			help: "AWS Region of the destination; else `AWS_REGION`, else the one in the ARN"},
		{name: "channel-arn", env: "CHANNEL_ARN", value: "arn", set: l.channelARN,
			example: "arn:aws:cloudtrail:eu-central-1:123456789012:channel/11111111-2222-3333-4444-555555555555",
			help:    "the CloudTrail Lake channel"},
		{name: "external-id", value: "id",
			set:  text(&s.ExternalID, token(2, 1224, "_+=,.@:/-"), "2 to 1224 letters, digits and any of _ + = , . @ : / -"),
			help: "external id, if the channel's policy asks for one"},
		{name: "event-data-store", value: "id", example: "11111111-2222-3333-4444-555555555555", set: l.eventDataStore,
			help: "the event data store behind the channel, by id or ARN: `relay verify` asks it what has arrived"},
		{name: "put-rate", value: "n", def: "92", onPage: true, set: number(&s.PutRate, 1, 10_000),
			help: "calls to CloudTrail Lake a second, at most; AWS allows 100 for an account and Region"},
		{name: "put-concurrency", value: "n", def: "8", onPage: true, set: number(&s.PutConcurrency, 1, 64),
			help: "puts in flight, at most; a tail beside a reconcile has two more"},
		{name: "retry-for", value: "duration", def: "2m", onPage: true, set: duration(&s.RetryFor, time.Second, time.Hour),
			help: "how long a batch is retried before it is deferred"},
		{name: "redact", value: "paths", onPage: true, example: "config.api_key,credentials.value", set: l.redactPaths,
			help: "dotted paths, separated by commas, whose values are replaced in payloads and query strings before anything leaves; `@secrets` names all that Kong keeps secret; a payload that is not strict JSON is withheld whole"},
		{name: "event-format", value: "format", def: "cloudtrail",
			set:  text(&s.EventFormat, oneOf("cloudtrail", "ocsf"), "cloudtrail or ocsf"),
			help: "`cloudtrail`, or `ocsf` (OCSF 1.8.0, class API Activity) for `cloudwatch` and `jsonl`"},
		{name: "error-codes", def: "false", set: toggle(&s.ErrorCodes),
			help: "set errorCode in events of requests that Kong answered with 400 or more"},
		{name: "skip-own-reads", def: "false", onPage: true, set: toggle(&s.SkipOwnReads),
			help: "leave out the entries that Kong wrote about the relay's own reads; they are counted"},
		{name: "objects", def: "false", onPage: true, set: toggle(&s.Objects),
			help: "say in each event what the request changed, from what to what, without secrets; reads `/audit/objects` as well, and a write waits for what it changed: about half a second; an update 2 s, until every write has been announced for ten minutes"},

		{group: "Passes", name: "schedule", value: "duration", def: "1h", onPage: true, set: l.schedule,
			help: "time from one reconcile to the next; `@hourly` and `@daily` work too"},
		{name: "start-at", value: "time", set: l.startAt,
			example: "2026-01-31, 2026-01-31T12:00:00Z or 1769860800",
			help:    "leave out what is older than this: a date (UTC), a time, or Unix seconds; without it, all that Kong holds is delivered"},
		{name: "lease-wait", value: "duration", def: "30s", set: duration(&s.LeaseWait, 0, time.Hour),
			help: "how long `relay once` waits for the lease while another relay makes a pass"},

		{group: "Triggers", name: "listen", value: "host:port", def: "127.0.0.1:8080", onPage: true, set: listener(&s.Listen),
			help: "address that takes triggers, or `off`; anything but loopback needs a trigger secret"},
		{name: "trigger-secret", onPage: true, secret: &s.TriggerSecret, checkSecret: webhookSecrets,
			help: "the secret that the plugin signs with (`whsec_` and base64); several, separated by commas, while it is rotated"},
		{name: "event-hooks-secret", secret: &s.EventHooksSecret,
			help: "the secret of Kong's event hooks"},
		{name: "http-log-secret", secret: &s.HTTPLogSecret,
			help: "the password that Kong's http-log plugin sends to `/v1/http-log`"},
		{name: "trigger-rate", value: "n", def: "50", set: number(&s.TriggerRate, 1, 100_000),
			help: "triggers accepted a second, at most"},
		{name: "debounce", value: "duration", def: "30ms", set: duration(&s.Debounce, 0, 10*time.Second),
			help: "how long the first trigger waits for others"},

		{group: "Running", name: "ops-listen", value: "host:port", def: "127.0.0.1:9090", onPage: true, set: listener(&s.OpsListen),
			help: "address of the status page, `/status`, `/healthz`, `/readyz` and `/metrics`, or `off`"},
		{name: "emf", def: "false", set: toggle(&s.EMF),
			help: "let serve write the metrics that alarms of CloudWatch need to standard output each minute, in the embedded metric format"},
		{name: "log-level", value: "level", def: "info", set: l.logLevel,
			help: "`debug`, `info`, `warn` or `error`"},
		{name: "log-format", value: "format", def: "auto", set: text(&s.LogFormat, oneOf("auto", "json", "text"), "auto, json or text"),
			help: "`json`, `text`, or `auto` (text on a terminal, else JSON)"},
		{name: "secret-refresh", value: "duration", def: "5m", set: duration(&s.SecretRefresh, 5*time.Second, 24*time.Hour),
			help: "how long a secret from a file or Secrets Manager is kept before it is read again"},
	}
}

// setting is a row of the one table that flags, variables, defaults, help and
// relay/README.md's tables come from.
type setting struct {
	name    string // of the flag, without its dashes
	env     string // the variable, where that is not the name with RELAY_ before it
	group   string // the headline in help and README; table fills in that of the row before
	help    string // a sentence, without a full stop; literals in backquotes, which only the README shows
	value   string // what stands for the value in help; "" for a switch
	def     string // the default, as text; "" if there is none
	example string
	onPage  bool // the status page shows it
	// follows returns what other settings decide where it is not set. It may be nil.
	follows func() string
	// set reads the text, which has no blanks around it, into the settings. Its error is made
	// by expected. It is nil for a secret.
	set setter
	// secret is where a secret goes; nil for any other setting. A secret has no flag for the
	// text itself, as ps would show it.
	secret *secret.Secret
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
	for _, row := range new(loader).table() {
		flags = append(flags, row.flags()...)
	}
	return flags
}

// Variables returns the variables of all settings, in the order of the table.
func Variables() []string {
	var names []string
	for _, row := range new(loader).table() {
		if row.secret != nil {
			names = append(names, row.variable())
		}
		for _, f := range row.flags() {
			names = append(names, f.Env)
		}
	}
	return names
}

func (s setting) variable() string {
	return cmp.Or(s.env, "RELAY_"+strings.ToUpper(strings.ReplaceAll(s.name, "-", "_")))
}

// plainHelp returns the help as messages and the command line show it.
func (s setting) plainHelp() string { return strings.ReplaceAll(s.help, "`", "") }

// IsSwitch reports whether the flag takes no value.
func (f Flag) IsSwitch() bool { return f.Value == "" }

// flags returns the setting's flags: one, or for a secret those that say where it is.
func (s setting) flags() []Flag {
	help, variable := s.plainHelp(), s.variable()
	if s.secret == nil {
		return []Flag{{s.name, variable, s.group, help, s.value, s.def}}
	}
	return []Flag{
		{s.name + "-file", variable + "_FILE", s.group, "file that holds " + help + " (or the text itself in " + variable + ")", "file", ""},
		{s.name + "-secret-arn", variable + "_SECRET_ARN", s.group, "secret in Secrets Manager that holds " + help, "arn", ""},
	}
}

// String returns the flag and its variable as messages name them.
func (f Flag) String() string { return "--" + f.Name + " (" + f.Env + ")" }

// rowNamed returns the row of a name, which must be in the table.
func rowNamed(name string) setting {
	rows := new(loader).table()
	return rows[slices.IndexFunc(rows, func(row setting) bool { return row.name == name })]
}
