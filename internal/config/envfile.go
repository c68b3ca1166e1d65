package config

import (
	"fmt"
	"strings"
)

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
