package main

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"log/slog"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Settings is everything that flags and variables say, checked. What it holds
// is ready to use; nothing was contacted to make it.
type Settings struct {
	// Kong

	KongAdminAPI      string           // as configured
	KongSendToken     bool             // KONG_SUPERADMIN
	KongToken         Secret           // may be set even if it is not to be sent
	KongRootCA        []byte           // PEM, or nil
	KongClientCert    *tls.Certificate // nil if there is none
	KongTLSServerName string
	KongTimeout       time.Duration
	PageSize          int            // 1 to 1000
	AuditPublicKey    *rsa.PublicKey // nil if signatures are not to be checked

	// Ledger

	Source              string
	Adopt               bool
	LedgerFile          string   // of bbolt; "" is Redis
	RedisAddrs          []string // host:port, at least one
	RedisDB             int
	RedisUsername       string
	RedisPassword       Secret
	RedisTLS            bool
	RedisCA             []byte // PEM, or nil
	RedisCluster        bool
	RedisSentinelMaster string
	RedisPrefix         string
	RecordTTL           time.Duration

	// Destination

	Destination    Destination
	JSONLFile      string // for ToJSONL; "-" is standard output
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
	ErrorCodes     bool
	SkipOwnReads   bool

	// Passes and triggers

	Schedule         time.Duration // between two reconciles
	StartAt          time.Time     // what the first run delivers from; zero is everything
	LeaseWait        time.Duration
	Listen           string // "" if no listener is wanted
	TriggerSecret    Secret // one or more, separated by commas: see splitSecrets
	EventHooksSecret Secret
	TriggerRate      int // triggers a second
	Debounce         time.Duration

	// Running

	OpsListen     string // "" if no listener is wanted
	LogLevel      slog.Level
	LogFormat     string // auto, json or text
	SecretRefresh time.Duration

	// Warnings are for the log: settings that are allowed and look like a mistake.
	Warnings []string

	aws *awsConfigs
}

// Destination is where events go.
type Destination string

// Destinations.
const (
	ToCloudTrail Destination = "cloudtrail" // CloudTrail Lake
	ToCloudWatch Destination = "cloudwatch" // CloudWatch Logs
	ToJSONL      Destination = "jsonl"      // lines of JSON
)

// AWSConfig returns credentials, Region and endpoints for the destination. They
// are read once; secrets in Secrets Manager share them.
func (s *Settings) AWSConfig(ctx context.Context) (aws.Config, error) {
	return s.aws.in(ctx, s.Region)
}

// need says what a command uses, and so which settings it cannot do without. A
// setting that is given is checked in any case.
type need uint8

const (
	needKong need = 1 << iota
	needLedger
	needDestination
	needTrigger // the listener for triggers
)

// setting is a row of the one table that flags, variables, defaults, help and
// the README's tables come from.
type setting struct {
	name    string // of the flag, without its dashes
	env     string // the variable
	group   string // the headline in help and README
	help    string // a sentence, without a full stop
	value   string // what stands for the value in help; "" for a switch
	def     string // the default, as text; "" if there is none
	example string
	secret  bool // has no flag for the text itself, as ps would show it
	// set reads the text into Settings. Its error is made by expected.
	set func(l *loader, s *Settings, text string) error
	// setSecret does so for a secret.
	setSecret func(s *Settings, secret Secret)
	// checkSecret tells whether a text can be the secret; nil: any can.
	checkSecret func(text string) error
}

// settingFlag is a flag on the command line and the variable that it beats.
type settingFlag struct {
	name, env, group, help, value, def string
}

func (f settingFlag) isSwitch() bool { return f.value == "" }

// flags returns the setting's flags: one, or for a secret those that say where it is.
func (s setting) flags() []settingFlag {
	if !s.secret {
		return []settingFlag{{s.name, s.env, s.group, s.help, s.value, s.def}}
	}
	return []settingFlag{
		{s.name + "-file", s.env + "_FILE", s.group, "file that holds " + s.help + " (or the text itself in " + s.env + ")", "file", ""},
		{s.name + "-secret-arn", s.env + "_SECRET_ARN", s.group, "secret in Secrets Manager that holds " + s.help, "arn", ""},
	}
}

// String names the setting as a person knows it.
func (f settingFlag) String() string { return "--" + f.name + " (" + f.env + ")" }

// loader gathers what loadSettings reads, and what it finds wrong.
type loader struct {
	need     need
	flags    func(name string) (value string, set bool)
	getenv   func(string) string
	readFile func(string) ([]byte, error)
	problems settingsError

	channelRegion string // in CHANNEL_ARN
	groupRegion   string // in the log group's ARN
	groupAccount  string // in the log group's ARN
	adminURL      *url.URL
	clientCert    []byte
	clientKey     []byte
}

// loadSettings reads and checks all settings. A flag beats its variable, which
// beats the default; an empty variable counts as not set, and an empty flag
// stands for the default. The error is a [*settingsError] that names everything
// that is wrong, not just the first. Files are read, and nothing is contacted.
func loadSettings(n need, flags func(name string) (value string, set bool), getenv func(string) string,
	readFile func(string) ([]byte, error),
) (Settings, error) {
	l := &loader{need: n, flags: flags, getenv: getenv, readFile: readFile}
	s := Settings{aws: newAWSConfigs()}
	var secrets []setting
	for _, row := range settingsTable() {
		if row.secret {
			secrets = append(secrets, row)
			continue
		}
		f := row.flags()[0]
		text := l.text(f)
		if text == "" {
			text = row.def
		}
		if text == "" {
			continue
		}
		if err := row.set(l, &s, text); err != nil {
			l.problems.wrongValue(row, text, err)
		}
	}
	for _, row := range secrets { // they need --secret-refresh
		l.loadSecret(row, &s)
	}
	l.checkRules(&s)
	if len(l.problems.lines) > 0 {
		return Settings{}, &l.problems
	}
	return s, nil
}

// text is what the flag or the variable says, or "".
func (l *loader) text(f settingFlag) string {
	if text, set := l.flags(f.name); set {
		return text
	}
	return l.getenv(f.env)
}

// loadSecret takes a secret from the one place that says where it is.
func (l *loader) loadSecret(row setting, s *Settings) {
	f := row.flags()
	file, fileFlag := l.flags(f[0].name)
	id, arnFlag := l.flags(f[1].name)
	value := ""
	if !fileFlag && !arnFlag { // a flag beats all of the variables
		value, file, id = l.getenv(row.env), l.getenv(f[0].env), l.getenv(f[1].env)
	}
	given := 0
	for _, text := range []string{value, file, id} {
		if text != "" {
			given++
		}
	}
	switch {
	case given == 0:
	case given > 1:
		l.problems.add("%s is given in more than one way. Keep one of %s, %s and %s.", row.env, row.env, f[0], f[1])
	case id != "":
		a, err := parseSecretARN(id)
		if err != nil {
			l.problems.wrongValue(setting{name: f[1].name, env: f[1].env}, id, err)
			return
		}
		row.setSecret(s, newSecret(f[1].env+" "+id, s.SecretRefresh, row.checkSecret, a.reader(s.aws)))
	case file != "":
		secret := newSecret(f[0].env+" "+file, s.SecretRefresh, row.checkSecret, func(context.Context) (string, error) {
			text, err := l.readFile(file)
			return string(text), err
		})
		if _, err := secret.source.load(context.Background()); err != nil {
			row.help = "a file that holds " + row.help
			l.problems.add("%s is %s: %s %s", f[0], shown(file), fileReason(err), row.advice(err))
			return
		}
		row.setSecret(s, secret)
	default:
		secret := newSecret(row.env, 0, row.checkSecret, func(context.Context) (string, error) { return value, nil })
		if _, err := secret.source.load(context.Background()); err != nil {
			l.problems.add("%s is set to something that cannot be used: %s %s", row.env, fileReason(err), row.advice(err))
			return
		}
		row.setSecret(s, secret)
	}
}
