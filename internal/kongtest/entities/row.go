package entities

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// shuffled writes the fields of an object in any order.
var shuffled = json.MarshalToFunc(func(e *jsontext.Encoder, fields map[string]any) error {
	err := e.WriteToken(jsontext.BeginObject)
	names := slices.Collect(maps.Keys(fields))
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		err = errors.Join(err, e.WriteToken(jsontext.String(name)), json.MarshalEncode(e, fields[name]))
	}
	return errors.Join(err, e.WriteToken(jsontext.EndObject))
})

// Text is an entity as Kong writes it into the log: its fields in any order, which
// differs from row to row, and slashes escaped, as Lua's encoder does both.
func Text(entity jsontext.Value) string {
	var v any
	if err := json.Unmarshal(entity, &v, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
		return string(entity) // not JSON: as it is
	}
	text, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.WithMarshalers(shuffled))
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	return strings.ReplaceAll(string(text), "/", `\/`)
}
