package config

import (
	"slices"
	"strings"
)

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
	secret  bool // has no flag for the text itself, as ps would show it
	// set reads the text into Settings. Its error is made by expected.
	set func(l *loader, s *Settings, text string) error
	// setSecret does so for a secret.
	setSecret func(s *Settings, secret Secret)
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
