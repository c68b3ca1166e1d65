package changes

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

const (
	lineFields = 3  // fields that a line names
	lineValue  = 60 // bytes of a value that it shows
)

// Of returns the changes in the text of responseElements, and nil for any other text.
func Of(text string) []Change {
	var of struct {
		Changes []Change `json:"changes"`
	}
	if json.Unmarshal([]byte(text), &of) != nil {
		return nil
	}
	return of.Changes
}

// Lines says for a person what the text of responseElements says, in a line for each
// change: services/orders: path "/a" → "/b". It returns nil for any other text.
func Lines(text string) []string {
	var lines []string
	for _, c := range Of(text) {
		lines = append(lines, c.line())
	}
	return lines
}

func (c *Change) line() string {
	what := c.Entity + "/" + c.Name
	if c.Name == "" {
		what = c.Entity + "/" + c.Key
	}
	switch {
	case c.Operation != Update:
		return what + " " + strings.TrimSuffix(c.Operation, "e") + "ed"
	case c.History == Unavailable:
		return what + " updated, and what it was before is not known"
	}
	var parts []string
	more := c.Truncated
	add := func(path, from, to string) {
		switch {
		case path == "/updated_at":
		case len(parts) == lineFields:
			more++
		default:
			name := strings.NewReplacer("~1", "/", "~0", "~").Replace(strings.TrimPrefix(path, "/"))
			parts = append(parts, name+" "+from+" → "+to)
		}
	}
	to := map[string]string{}
	for _, f := range c.To {
		to[f.Path] = short(f.Value)
	}
	for _, f := range c.From {
		after, ok := to[f.Path]
		if !ok {
			after = "none"
		}
		add(f.Path, short(f.Value), after)
		delete(to, f.Path)
	}
	for _, f := range c.To {
		if after, left := to[f.Path]; left {
			add(f.Path, "none", after)
		}
	}
	if more > 0 {
		parts = append(parts, strconv.Itoa(more)+" more")
	}
	if len(parts) == 0 {
		return what + " updated, and nothing changed"
	}
	line := what + ": " + strings.Join(parts, ", ")
	if c.History == Approximate {
		line += " (approximate)"
	}
	return line
}

func short(value []byte) string {
	if len(value) <= lineValue {
		return string(value)
	}
	return strings.ToValidUTF8(string(value[:lineValue]), "") + "…"
}
