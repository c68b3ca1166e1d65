// Package redact removes values from entries before anything leaves the relay.
//
// It fails closed: what it cannot look into with certainty is withheld whole.
package redact

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
)

const (
	// maxNesting is how deep a payload may be nested to be looked into. What Kong is
	// configured with is some ten levels deep; a payload made to be deeper would cost
	// time by its depth, and in the end the stack.
	maxNesting = 100
	// redacted replaces each value that is removed.
	redacted = "[redacted]"
)

// New returns a function that removes what dotted paths name from an entry. A path
// goes into the elements of a list by itself, and * stands for any key. Paths begin
// at the root of the payload, of each unknown field, and of a JSON text within a
// string; the names in the query string are paths as well.
//
// A payload that is not a strict JSON object or list (RFC 7493), or is nested too
// deep, is withheld whole: only its size, SHA-256 and the reason stay.
//
// The path [Secrets] removes what is a secret in an entity of Kong: see package changes.
func New(paths []string) func(*audit.Entry) {
	r := &redactor{}
	for _, p := range paths {
		if p == Secrets {
			r.secrets = true
			continue
		}
		r.roots = append(r.roots, strings.Split(p, "."))
	}
	return r.entry
}

// Secrets is the name for every field that is a secret by the table of Kong's entities.
const Secrets = "@secrets"

type redactor struct {
	roots   []path
	secrets bool
}

// path is what remains of a path below the value at hand.
type path []string

func (r *redactor) entry(e *audit.Entry) {
	var withheld []byte
	// set replaces a text by what is left of it, or by nothing for a reason.
	set := func(name string, text *string, clean, reason string) {
		if reason != "" {
			sum := sha256.Sum256([]byte(*text))
			withheld = fmt.Appendf(withheld, `,%q:{"bytes":%d,"sha256":"%x","reason":%q}`, name, len(*text), sum, reason)
		}
		*text = clean
	}
	if e.Payload != "" {
		clean, reason := r.document(e.Payload, changes.Kind(e.Path), r.roots)
		set("requestParameters.payload", &e.Payload, clean, reason)
	}
	urlPath, query, ok := strings.Cut(e.Path, "?")
	e.Path = r.urlPath(urlPath)
	if ok {
		clean, reason := r.query(query)
		if set("requestParameters.queryParameters", &query, clean, reason); reason == "" {
			e.Path += "?" + query
		}
	}
	if e.Unknown != "" {
		// Paths begin at each field as well as at the object of all of them.
		roots := slices.Clone(r.roots)
		for _, p := range r.roots {
			roots = append(roots, slices.Concat(path{"*"}, p))
		}
		clean, reason := r.document(e.Unknown, "", roots)
		set("additionalEventData.kong", &e.Unknown, clean, reason)
	}
	for _, s := range []*string{&e.RemovedFromPayload, &e.RBACUserName, &e.RequestSource} {
		*s = r.text(*s, nil, 0)
	}
	if len(withheld) > 0 {
		withheld[0] = '{'
		e.Withheld = string(append(withheld, '}'))
	}
}

// document redacts a JSON text: an entity of a kind, or what is to become one. It returns a
// reason if the text must be withheld.
func (r *redactor) document(text, kind string, paths []path) (clean, reason string) {
	if !jsontext.Value(text).IsValid() {
		return "", "not strict JSON"
	}
	if kind := jsontext.Value(text).Kind(); kind != jsontext.KindBeginObject && kind != jsontext.KindBeginArray {
		return "", "not a JSON object or list"
	}
	clean, ok := r.strict(text, paths, 0)
	if ok && r.secrets {
		clean, ok = changes.Hide(kind, clean, redacted)
	}
	if !ok {
		return "", errTooDeep.Error()
	}
	return clean, ""
}

// strict redacts strict JSON, which is nested depth levels deep in another one. It
// reports false if the whole is nested too deep. Text without anything to redact is
// returned as it is.
func (r *redactor) strict(text string, paths []path, depth int) (string, bool) {
	var out bytes.Buffer
	c := &copier{redactor: r, Decoder: jsontext.NewDecoder(strings.NewReader(text)), depth: depth}
	c.out = jsontext.NewEncoder(&out, jsontext.PreserveRawStrings(true), jsontext.AllowDuplicateNames(true))
	if c.value(paths) != nil {
		return "", false
	}
	if !c.changed {
		return text, true
	}
	return strings.TrimSuffix(out.String(), "\n"), true
}

// copier copies a JSON text, without what is to be redacted.
type copier struct {
	*redactor
	*jsontext.Decoder

	out     *jsontext.Encoder
	depth   int
	changed bool
}

func (c *copier) replace(text string) error {
	c.changed = true
	return c.out.WriteToken(jsontext.String(text))
}

var errTooDeep = errors.New("nested too deep")

// value copies a value, without what the paths name below it.
func (c *copier) value(paths []path) error {
	if c.depth+c.StackDepth() > maxNesting {
		return errTooDeep
	}
	kind := c.PeekKind()
	if kind == jsontext.KindBeginObject || kind == jsontext.KindBeginArray {
		return c.members(kind == jsontext.KindBeginObject, paths)
	}
	v, err := c.ReadValue()
	if err != nil {
		return err
	}
	if kind == jsontext.KindString {
		text, _ := jsontext.AppendUnquote(nil, v)
		if clean := c.text(string(text), paths, c.depth+c.StackDepth()); clean != string(text) {
			return c.replace(clean)
		}
	}
	return c.out.WriteValue(v)
}

// members copies an object or a list.
func (c *copier) members(isObject bool, paths []path) error {
	if err := c.token(); err != nil {
		return err
	}
	for kind := c.PeekKind(); kind != jsontext.KindEndObject && kind != jsontext.KindEndArray; kind = c.PeekKind() {
		below, whole := paths, false
		if isObject {
			name, err := c.ReadValue()
			if err == nil {
				err = c.out.WriteValue(name)
			}
			if err != nil {
				return err
			}
			key, _ := jsontext.AppendUnquote(nil, name)
			below, whole = match(string(key), paths)
		}
		var err error
		if whole {
			err = errors.Join(c.SkipValue(), c.replace(redacted))
		} else {
			err = c.value(below)
		}
		if err != nil {
			return err
		}
	}
	return c.token()
}

// token copies the begin or the end of an object or a list.
func (c *copier) token() error {
	t, err := c.ReadToken()
	if err != nil {
		return err
	}
	return c.out.WriteToken(t)
}

// match returns what the paths name below a key, and reports whether one of them names
// the key itself.
func match(key string, paths []path) (below []path, whole bool) {
	matches := func(step, want string) bool { return want == "*" || want == step }
	for _, steps := range readings(key) {
		for _, p := range paths {
			n := min(len(steps), len(p))
			switch {
			case n == 0 || !slices.EqualFunc(steps[:n], p[:n], matches):
			case n == len(p):
				return nil, true
			default:
				below = append(below, p[n:])
			}
		}
	}
	return below, false
}

// readings returns the sequences of names that a key may stand for. A key of a form, such
// as config.hosts[1].name, stands for several names; one of its readings leaves out
// positions in lists, which no path has.
func readings(key string) [][]string {
	all := [][]string{{key}}
	if !strings.ContainsAny(key, ".[]") {
		return all
	}
	steps := strings.FieldsFunc(key, func(c rune) bool { return c == '.' || c == '[' || c == ']' })
	all = append(all, steps)
	named := slices.DeleteFunc(slices.Clone(steps), func(s string) bool {
		_, err := strconv.Atoi(s)
		return err == nil
	})
	if len(named) > 0 && len(named) < len(steps) {
		all = append(all, named)
	}
	return all
}
