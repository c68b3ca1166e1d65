// Package config reads all settings of the relay, from flags, variables, files and
// Secrets Manager, by one table, and checks them.
package config

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/secret"
)

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

// SecretsChanged returns for each secret when it was last changed, where that is known.
func (s *Settings) SecretsChanged() map[string]time.Time {
	known := map[string]time.Time{}
	for name, text := range s.secrets {
		if at := text.Changed(); !at.IsZero() {
			known[name] = at
		}
	}
	return known
}

// AWSConfig returns credentials, Region and endpoints for the destination. They
// are read once; secrets in Secrets Manager share them.
func (s *Settings) AWSConfig(ctx context.Context) (aws.Config, error) {
	return s.aws.In(ctx, s.Region)
}

// UseAWS makes a configuration stand for the one that the environment describes.
func (s *Settings) UseAWS(c aws.Config) {
	s.aws = &awscall.Configs{Load: func(context.Context) (aws.Config, error) { return c, nil }}
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
