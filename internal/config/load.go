package config

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
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
)

// loader gathers what Load reads, and what it finds wrong.
type loader struct {
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
// stands for the default. The error is an [*Error] that names everything
// that is wrong, not just the first. Load reads files and contacts nothing.
func Load(n Need, flags func(name string) (value string, set bool), getenv func(string) string,
	readFile func(string) ([]byte, error),
) (Settings, error) {
	l := &loader{need: n, flags: flags, getenv: getenv, readFile: readFile, wrong: map[string]bool{}, arns: map[Destination]arn.ARN{}}
	s := Settings{aws: newAWSConfigs(), secrets: map[string]Secret{}}
	var secrets []setting
	for _, row := range table() {
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
			l.wrong[row.name] = true
			l.problems.wrongValue(row, text, err)
		}
	}
	for _, row := range secrets { // they Need --secret-refresh
		l.loadSecret(row, &s)
	}
	l.checkRules(&s)
	if len(l.problems.lines) > 0 {
		return Settings{}, &l.problems
	}
	l.noteInForce(&s)
	return s, nil
}

// text is what the flag or the variable says, or "", without blanks and line ends at
// both sides: files of variables leave a carriage return, or quote what they should not.
func (l *loader) text(f Flag) string {
	if text, set := l.flags(f.Name); set {
		return strings.TrimSpace(text)
	}
	return strings.TrimSpace(l.getenv(f.Env))
}

// loadSecret takes a secret from the one place that says where it is.
func (l *loader) loadSecret(row setting, s *Settings) {
	f := row.flags()
	file, fileFlag := l.flags(f[0].Name)
	id, arnFlag := l.flags(f[1].Name)
	value := ""
	if !fileFlag && !arnFlag { // a flag beats all of the variables
		value, file, id = l.getenv(row.env), l.getenv(f[0].Env), l.getenv(f[1].Env)
	}
	value, file, id = strings.TrimSpace(value), strings.TrimSpace(file), strings.TrimSpace(id)
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
			l.problems.wrongValue(setting{name: f[1].Name, env: f[1].Env}, id, err)
			return
		}
		created := new(atomic.Int64)
		secret := newSecret(f[1].Env+" "+id, s.SecretRefresh, row.checkSecret, a.reader(s.aws, created))
		secret.source.changed = func() time.Time {
			if at := created.Load(); at != 0 {
				return time.Unix(at, 0)
			}
			return time.Time{}
		}
		row.takeSecret(s, secret)
	case file != "":
		secret := newSecret(f[0].Env+" "+file, s.SecretRefresh, row.checkSecret, func(context.Context) (string, error) {
			text, err := l.readFile(file)
			return string(text), err
		})
		secret.source.changed = func() time.Time {
			info, err := os.Stat(file)
			if err != nil {
				return time.Time{}
			}
			return info.ModTime()
		}
		if _, err := secret.source.load(context.Background()); err != nil {
			row.help = "a file that holds " + row.help
			l.problems.add("%s is %s: %s %s", f[0], shown(file), fileReason(err), row.advice(err))
			return
		}
		row.takeSecret(s, secret)
	default:
		secret := newSecret(row.env, 0, row.checkSecret, func(context.Context) (string, error) { return value, nil })
		if _, err := secret.source.load(context.Background()); err != nil {
			l.problems.add("%s is set to something that cannot be used: %s %s", row.env, fileReason(err), row.advice(err))
			return
		}
		row.takeSecret(s, secret)
	}
}

// takeSecret sets the secret of a row.
func (s setting) takeSecret(to *Settings, secret Secret) {
	s.setSecret(to, secret)
	to.secrets[s.name] = secret
}

// OpsListen returns the address of the operations listener, "" for none. It reads
// that one setting: a health check has no use for the others, and must not fetch
// their secrets every few seconds.
func OpsListen(flag func(name string) (value string, set bool), getenv func(string) string) (string, error) {
	l := &loader{flags: flag, getenv: getenv}
	var s Settings
	row := rowNamed("ops-listen")
	text := cmp.Or(l.text(row.flags()[0]), row.def)
	if err := row.set(l, &s, text); err != nil {
		l.problems.wrongValue(row, text, err)
		return "", &l.problems
	}
	return s.OpsListen, nil
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
			value = value[1 : len(value)-1]
		}
		vars[name] = value
	}
	return vars, nil
}
