package entities

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Text is an entity as Kong writes it into the log: its fields in any order, which
// differs from row to row, and slashes escaped, as Lua's encoder does both.
func Text(entity jsontext.Value) string {
	var v any
	if err := json.Unmarshal(entity, &v, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
		return string(entity) // not JSON: as it is
	}
	var b strings.Builder
	write(&b, v)
	return b.String()
}

func write(b *strings.Builder, v any) {
	switch v := v.(type) {
	case map[string]any:
		b.WriteByte('{')
		names := slices.Collect(maps.Keys(v))
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for i, name := range names {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, name)
			b.WriteByte(':')
			write(b, v[name])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, v[i])
		}
		b.WriteByte(']')
	default:
		leaf, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
		if err != nil {
			panic(err) // it was decoded from JSON
		}
		b.WriteString(strings.ReplaceAll(string(leaf), "/", `\/`))
	}
}
