package config

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/secret"
)

// Need says what a command uses, and so which settings it cannot do without. A
// setting that is given is checked in any case.
type Need uint8

// What a command uses.
const (
	NeedKong Need = 1 << iota
	NeedLedger
	NeedDestination
	NeedTrigger // the listener for triggers

	NeedPass = NeedKong | NeedLedger | NeedDestination // what a pass uses
	NeedAll  = NeedPass | NeedTrigger                  // what relay serve uses
)

// loader gathers what Load reads, and what it finds wrong.
type loader struct {
	settings Settings
	need     Need
	flags    func(name string) (value string, set bool)
	getenv   func(string) string
	readFile func(string) ([]byte, error)
	problems Error

	wrong      map[string]bool         // settings whose value cannot be used
	arns       map[Destination]arn.ARN // that settings name
	adminURL   *url.URL
	clientCert []byte
	clientKey  []byte
}

// Load reads and checks all settings. A flag beats its variable, which
// beats the default; an empty variable counts as not set, and an empty flag
// stands for the default; flags may be nil. The error is an [*Error] that names everything
// that is wrong, not just the first. Load reads files and contacts nothing.
func Load(n Need, flags func(name string) (value string, set bool), getenv func(string) string,
	readFile func(string) ([]byte, error),
) (Settings, error) {
	l := newLoader(flags, getenv)
	l.settings, l.need, l.readFile = Settings{aws: &awscall.Configs{}}, n, readFile
	l.wrong, l.arns = map[string]bool{}, map[Destination]arn.ARN{}
	rows := l.table()
	for _, row := range rows {
		if row.secret != nil {
			continue
		}
		text := cmp.Or(l.text(row.flags()[0]), row.def)
		if text == "" {
			continue
		}
		if err := row.set(text); err != nil {
			l.wrong[row.name] = true
			l.problems.wrongValue(row, text, err)
		}
	}
	for _, row := range rows { // now, as they need --secret-refresh
		if row.secret != nil {
			l.loadSecret(row)
		}
	}
	l.checkRules()
	if len(l.problems.lines) > 0 {
		return Settings{}, &l.problems
	}
	l.noteInForce()
	return l.settings, nil
}

// newLoader returns a loader that reads flags and variables without blanks and line ends at
// both sides: files of variables leave a carriage return, or quote what they should not.
func newLoader(flags func(name string) (value string, set bool), getenv func(string) string) *loader {
	return &loader{
		flags: func(name string) (string, bool) {
			if flags == nil {
				return "", false
			}
			text, set := flags(name)
			return strings.TrimSpace(text), set
		},
		getenv: func(name string) string { return strings.TrimSpace(getenv(name)) },
	}
}

// text returns what the flag or the variable says, or "".
func (l *loader) text(f Flag) string {
	if text, set := l.flags(f.Name); set {
		return text
	}
	return l.getenv(f.Env)
}

// secretGiven returns what flags and variables say of a secret: its text, the path of its
// file, and its ARN. A flag beats all of the variables.
func (l *loader) secretGiven(row setting) (text, file, id string) {
	f := row.flags()
	file, fileFlag := l.flags(f[0].Name)
	id, arnFlag := l.flags(f[1].Name)
	if !fileFlag && !arnFlag {
		text, file, id = l.getenv(row.variable()), l.getenv(f[0].Env), l.getenv(f[1].Env)
	}
	return text, file, id
}

// loadSecret takes a secret from the one place that says where it is.
func (l *loader) loadSecret(row setting) {
	f := row.flags()
	value, file, id := l.secretGiven(row)
	given := 0
	for _, text := range []string{value, file, id} {
		if text != "" {
			given++
		}
	}
	switch {
	case given == 0:
	case given > 1:
		l.problems.add("%s is given in more than one way. Keep one of %s, %s and %s.", row.variable(), row.variable(), f[0], f[1])
	case id != "":
		a, ok := secret.ParseARN(id)
		if !ok {
			l.problems.wrongValue(setting{name: f[1].Name, env: f[1].Env}, id, errSecretARN)
			return
		}
		l.takeSecret(row, f[1].Env+" "+id, a.Source(l.settings.aws))
	case file != "":
		if err := l.takeSecret(row, f[0].Env+" "+file, secret.File(file, l.readFile)).Try(context.Background()); err != nil {
			row.help = "a file that holds " + row.help
			l.problems.add("%s is %s: %s %s", f[0], quoteValue(file), fileReason(err), row.advice(err))
		}
	default:
		here := secret.Source{Read: func(context.Context) (string, error) { return value, nil }}
		if err := l.takeSecret(row, row.variable(), here).Try(context.Background()); err != nil {
			l.problems.add("%s is set to something that cannot be used: %s %s", row.variable(), fileReason(err), row.advice(err))
		}
	}
}

// errSecretARN says what a secret's ARN has to look like.
var errSecretARN = expected("the ARN of a secret in Secrets Manager",
	"For example: arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong-AbCdEf, with #key after it for one key of a JSON secret.")

// takeSecret sets the secret of a row, which is read from a source.
func (l *loader) takeSecret(row setting, where string, source secret.Source) secret.Secret {
	source.Where, source.Check, source.Refresh = where, row.checkSecret, l.settings.SecretRefresh
	*row.secret = secret.New(source)
	return *row.secret
}

// Given returns what flags and variables say of each setting, by variable, unchecked.
// REGION is AWS_REGION where nothing else says it.
func Given(flags func(name string) (value string, set bool), getenv func(string) string) map[string]string {
	l := newLoader(flags, getenv)
	given := map[string]string{}
	for _, row := range l.table() {
		if f := row.flags(); row.secret != nil {
			given[row.variable()], given[f[0].Env], given[f[1].Env] = l.secretGiven(row)
		} else {
			given[row.variable()] = l.text(f[0])
		}
	}
	given["REGION"] = cmp.Or(given["REGION"], l.getenv("AWS_REGION"))
	return given
}

// OpsListen returns the address of the operations listener, "" for none. It reads
// that one setting: a health check has no use for the others, and must not fetch
// their secrets every few seconds.
func OpsListen(flags func(name string) (value string, set bool), getenv func(string) string) (string, error) {
	l := newLoader(flags, getenv)
	row := rowNamed("ops-listen")
	text := cmp.Or(l.text(row.flags()[0]), row.def)
	var addr string
	if err := listener(&addr)(text); err != nil {
		l.problems.wrongValue(row, text, err)
		return "", &l.problems
	}
	return addr, nil
}

// ParseEnvFile reads a file of variables: NAME=value lines as docker's --env-file and
// systemd's EnvironmentFile have them. Blank lines and lines that begin with # are
// left out, export before a name is too, and quotes around a value are taken off. No
// value is repeated in an error.
func ParseEnvFile(text string) (map[string]string, error) {
	vars, n := map[string]string{}, 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found || name == "" || strings.ContainsAny(name, " \t\"'") {
			return nil, fmt.Errorf("line %d is not NAME=value", n)
		}
		if quote := value[:min(len(value), 1)]; quote == `"` || quote == "'" {
			if len(value) < 2 || !strings.HasSuffix(value, quote) {
				return nil, fmt.Errorf("line %d begins with a quote and does not end with it", n)
			}
			value = strings.TrimSpace(value[1 : len(value)-1]) // AWS's SDK does not do it
		}
		vars[name] = value
	}
	return vars, nil
}
