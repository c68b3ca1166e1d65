package config

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// InForce is a setting as it is in force, and where its value came from.
type InForce struct {
	Name     string `json:"name"`
	Variable string `json:"variable"`
	Value    string `json:"value"` // of a secret only that there is one
	From     string `json:"from"`  // flag, variable, default, not set; a file or Secrets Manager; or that it follows from the others

	onPage bool
}

// InForce returns all settings in the order of the table.
func (s *Settings) InForce() []InForce { return s.inForce }

// OnStatusPage returns the settings that the status page shows.
func (s *Settings) OnStatusPage() []InForce {
	return slices.DeleteFunc(slices.Clone(s.inForce), func(in InForce) bool { return !in.onPage })
}

func (l *loader) noteInForce() {
	for _, row := range l.table() {
		in := l.valueInForce(row)
		in.Name, in.Variable, in.onPage = row.name, row.variable(), row.onPage
		l.settings.inForce = append(l.settings.inForce, in)
	}
}

func (l *loader) valueInForce(row setting) InForce {
	if row.secret != nil {
		return l.secretInForce(row)
	}
	f := row.flags()[0]
	text := l.text(f)
	_, flag := l.flags(f.Name)
	switch {
	case text != "" && flag:
		return InForce{Value: masked(text), From: "flag"}
	case text != "":
		return InForce{Value: masked(text), From: "variable"}
	}
	if row.follows != nil {
		if text = row.follows(); text != "" && text != row.def {
			return InForce{Value: text, From: "follows from the others"}
		}
	}
	if row.def != "" {
		return InForce{Value: row.def, From: "default"}
	}
	return InForce{From: "not set"}
}

func (l *loader) secretInForce(row setting) InForce {
	switch text, file, id := l.secretGiven(row); {
	case id != "":
		return InForce{Value: "set", From: "Secrets Manager, " + id}
	case file != "":
		return InForce{Value: "set", From: "file " + file}
	case text != "":
		return InForce{Value: "set", From: "variable"}
	}
	return InForce{From: "not set"}
}

// masked returns a value for a person: not the text of a file, and nothing that may
// hold a credential.
func masked(text string) string {
	switch {
	case strings.Contains(text, "-----"), strings.Contains(text, "\n"):
		return "PEM text"
	case slices.ContainsFunc(strings.Split(text, ","), func(part string) bool {
		part = strings.TrimSpace(part)
		return strings.Contains(part, "@") && !slices.Contains([]string{"@hourly", "@daily", "@secrets"}, part)
	}):
		return notRepeated
	}
	return text
}

// SecretsChanged returns for each secret when it was last changed, where that is known.
func (s *Settings) SecretsChanged() map[string]time.Time {
	known := map[string]time.Time{}
	for _, row := range (&loader{settings: *s}).table() {
		if row.secret == nil || !row.secret.IsSet() {
			continue
		}
		if at := row.secret.Changed(); !at.IsZero() {
			known[row.name] = at
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
