package changes

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// number is a number of an entity as it was written. The other values of an entity have the
// types that package json gives to them.
type number string

// MarshalJSONTo implements [json.MarshalerTo].
func (n number) MarshalJSONTo(enc *jsontext.Encoder) error {
	return enc.WriteValue(jsontext.Value(n))
}

// equal reports whether two values that are neither objects nor lists are the same. Lua writes
// 1 as 1 or as 1.0.
func equal(a, b any) bool {
	x, isNumber := a.(number)
	y, areNumbers := b.(number)
	if !isNumber || !areNumbers {
		return a == b
	}
	f, errF := strconv.ParseFloat(string(x), 64)
	g, errG := strconv.ParseFloat(string(y), 64)
	return x == y || errF == nil && errG == nil && f == g
}

// empty reports whether a value is an empty list or object, which Lua does not tell apart.
func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// parse reads a strict JSON text that is not nested too deep.
func parse(text string) (v any, ok bool) {
	if json.Unmarshal([]byte(text), &v, asWritten) != nil {
		return nil, false // and not what comes before the mistake
	}
	return v, true
}

// asWritten keeps numbers as they were written, and refuses what is nested too deep.
var asWritten = json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, v *any) error {
	if dec.StackDepth() > maxNesting {
		return fmt.Errorf("nested more than %d levels deep", maxNesting)
	}
	if dec.PeekKind() != jsontext.KindNumber {
		return errors.ErrUnsupported
	}
	n, err := dec.ReadValue()
	*v = number(n)
	return err
}))

// objectIn reads a text that is a JSON object.
func objectIn(text string) (o map[string]any, ok bool) {
	v, _ := parse(text)
	o, ok = v.(map[string]any)
	return o, ok
}

// encode writes a value with the members of objects in the order of their names.
func encode(v any) jsontext.Value {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil { // of a value that parse returned
		return nil
	}
	return b
}
