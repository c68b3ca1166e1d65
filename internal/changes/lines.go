package changes

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
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
	what := c.Entity + "/" + cmp.Or(c.Name, c.Key)
	switch {
	case c.Operation != Update:
		return what + " " + strings.TrimSuffix(c.Operation, "e") + "ed"
	case c.History == Unavailable:
		return what + " updated, and what it was before is not known"
	}
	var parts []string
	more := c.Truncated
	for _, p := range c.Pairs() {
		if len(parts) == lineFields {
			more++
			continue
		}
		parts = append(parts, p.Name+" "+short(p.From)+" → "+short(p.To))
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
	switch {
	case value == nil:
		return "none"
	case len(value) <= lineValue:
		return string(value)
	}
	return strings.ToValidUTF8(string(value[:lineValue]), "") + "…"
}

// Pair is a field before and after a change. From is nil if the field was not there before,
// and To if it is not there now.
type Pair struct {
	Name     string // for a person: paths/0
	From, To jsontext.Value
}

// Pairs returns the fields of a change. The time of an update is not one of them.
func (c *Change) Pairs() []Pair {
	var pairs []Pair
	at := map[string]int{} // by path
	for k, f := range slices.Concat(c.From, c.To) {
		if f.Path == "/updated_at" && c.Operation == Update {
			continue
		}
		i, ok := at[f.Path]
		if !ok {
			i = len(pairs)
			at[f.Path] = i
			pairs = append(pairs, Pair{Name: strings.NewReplacer("~1", "/", "~0", "~").Replace(strings.TrimPrefix(f.Path, "/"))})
		}
		if k < len(c.From) {
			pairs[i].From = f.Value
		} else {
			pairs[i].To = f.Value
		}
	}
	return pairs
}
