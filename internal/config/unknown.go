package config

import (
	"cmp"
	"slices"
	"strings"
)

// UnknownVariables returns a warning for each variable of an environment
// (NAME=value, as os.Environ gives it) that begins with RELAY_ and is not a
// setting. No value is repeated.
func UnknownVariables(environ []string) []string {
	known := Variables()
	var warnings []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "RELAY_") || slices.Contains(known, name) || kubernetesService(name) {
			continue
		}
		text := name + " is not a setting and has no effect"
		// RELAY_REGION is meant to be REGION.
		if other := cmp.Or(Nearest(strings.TrimPrefix(name, "RELAY_"), known), Nearest(name, known)); other != "" {
			text += "; did you mean " + other + "?"
		}
		warnings = append(warnings, text)
	}
	slices.Sort(warnings)
	return warnings
}

// kubernetesService reports whether Kubernetes sets such a variable by itself, for
// a Service called relay.
func kubernetesService(name string) bool {
	return name == "RELAY_PORT" || strings.HasPrefix(name, "RELAY_PORT_") || strings.HasPrefix(name, "RELAY_SERVICE_")
}

// Nearest returns the known name that a name was most likely meant to be, or "".
func Nearest(name string, known []string) string {
	best, least := "", min(max(3, len(name)/2), 4) // with as many differences it is another name
	for _, other := range known {
		if d := distance(name, other); d < least {
			best, least = other, d
		}
	}
	if best != "" || len(name) <= 2 {
		return best
	}
	for _, other := range known {
		if strings.HasPrefix(other, name) {
			return other
		}
	}
	return ""
}

// distance is how many letters have to be put in, taken out or replaced to make
// one name from another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
