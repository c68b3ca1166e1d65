package config

import (
	"cmp"
	"strings"
)

// InForce is a setting as it is in force, and where its value came from.
type InForce struct {
	Name     string `json:"name"`
	Variable string `json:"variable"`
	Value    string `json:"value"` // of a secret only that there is one
	From     string `json:"from"`  // flag, variable, the env file, default; a file or Secrets Manager; or what it follows from
}

// ListInForce returns all settings in the order of the table. s is what Load made of
// them; from returns where a variable was set, such as "variable".
func ListInForce(s *Settings, flags func(name string) (value string, set bool), getenv func(string) string, from func(variable string) string) []InForce {
	l := &loader{flags: flags, getenv: getenv}
	var list []InForce
	for _, row := range table() {
		if row.secret {
			list = append(list, l.secretInForce(row, from))
			continue
		}
		f := row.flags()[0]
		in := InForce{Name: f.Name, Variable: f.Env, Value: masked(l.text(f))}
		_, flag := l.flags(f.Name)
		switch {
		case in.Value != "" && flag:
			in.From = "flag"
		case in.Value != "":
			in.From = from(f.Env)
		case follows(s, row.name) != "" && row.def != follows(s, row.name):
			in.Value, in.From = follows(s, row.name), "follows from the others"
		case row.def != "":
			in.Value, in.From = row.def, "default"
		default:
			in.From = "not set"
		}
		list = append(list, in)
	}
	return list
}

// follows returns the value of a setting that others decide where it is not set.
func follows(s *Settings, name string) string {
	switch name {
	case "destination":
		return string(s.Destination)
	case "region":
		return s.Region
	}
	return ""
}

func (l *loader) secretInForce(row setting, from func(variable string) string) InForce {
	in := InForce{Name: row.name, Variable: row.env, From: "not set"}
	f := row.flags()
	file, arn := f[0], f[1]
	switch {
	case l.text(arn) != "":
		in.Value, in.From = "set", "Secrets Manager, "+l.text(arn)
	case l.text(file) != "":
		in.Value, in.From = "set", "file "+l.text(file)
	case strings.TrimSpace(l.getenv(row.env)) != "":
		in.Value, in.From = "set", from(row.env)
	}
	return in
}

// masked returns a value for a person: not the text of a file, and nothing that may
// hold a credential.
func masked(text string) string {
	switch {
	case strings.Contains(text, "-----"), strings.ContainsAny(text, "\n"):
		return "PEM text"
	case strings.Contains(text, "@"):
		return "set to something that is not repeated here"
	}
	return text
}

// Nearest returns the known name that a name was most likely meant to be, or "".
func Nearest(name string, known []string) string {
	best, least := "", min(max(3, len(name)/2), 4) // with as many differences it is another name
	for _, other := range known {
		if d := distance(name, other); d < least {
			best, least = other, d
		}
	}
	if best == "" {
		for _, other := range known {
			if len(name) > 2 && strings.HasPrefix(other, name) {
				return cmp.Or(best, other)
			}
		}
	}
	return best
}

// ShortList returns the names of the settings that most installations set.
func ShortList() []string {
	return []string{
		"kong-admin-api", "kong-superadmin", "kong-admin-token-file", "kong-root-ca", "redis-host", "redis-password-file", "ledger",
		"log-group", "channel-arn", "region", "listen", "trigger-secret-file", "ops-listen", "schedule", "redact",
	}
}
