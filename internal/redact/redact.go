// Package redact removes values from entries before anything leaves the relay.
//
// It fails closed: what it cannot look into with certainty is withheld whole.
package redact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
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
	withhold := func(name, reason string, text *string) {
		sum := sha256.Sum256([]byte(*text))
		withheld = append(withheld, ',')
		withheld = append(withheld, strconv.Quote(name)+`:{"bytes":`+strconv.Itoa(len(*text))+
			`,"sha256":"`+hex.EncodeToString(sum[:])+`","reason":"`+reason+`"}`...)
		*text = ""
	}
	if e.Payload != "" {
		text, reason := r.document(e.Payload, r.roots)
		if reason == "" && r.secrets {
			var ok bool
			if text, ok = changes.Hide(changes.Kind(e.Path), text, redacted); !ok {
				reason = "not looked into"
			}
		}
		if reason == "" {
			e.Payload = text
		} else {
			withhold("requestParameters.payload", reason, &e.Payload)
		}
	}
	steps, query, ok := strings.Cut(e.Path, "?")
	e.Path = r.steps(steps)
	if ok {
		if text, reason := r.query(query); reason == "" {
			if r.secrets {
				text = hideQuery(text)
			}
			e.Path += "?" + text
		} else {
			withhold("requestParameters.queryParameters", reason, &query)
		}
	}
	if e.Unknown != "" {
		// Paths begin at each field as well as at the object of all of them.
		roots := slices.Clone(r.roots)
		for _, p := range r.roots {
			roots = append(roots, slices.Concat(path{"*"}, p))
		}
		if text, reason := r.document(e.Unknown, roots); reason == "" {
			e.Unknown = text
		} else {
			withhold("additionalEventData.kong", reason, &e.Unknown)
		}
	}
	for _, s := range []*string{&e.RemovedFromPayload, &e.RBACUserName, &e.RequestSource} {
		*s = r.text(*s, nil, 0)
	}
	if len(withheld) > 0 {
		withheld[0] = '{'
		e.Withheld = string(append(withheld, '}'))
	}
}

// hideQuery removes the values of those names of a query string that are names of secrets.
func hideQuery(query string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, _, ok := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && ok && changes.SecretName(plain) {
			pairs[i] = name + "=" + redacted
		}
	}
	return strings.Join(pairs, "&")
}

// document redacts a JSON text. It returns a reason if the text must be withheld.
func (r *redactor) document(text string, paths []path) (clean, reason string) {
	if !jsontext.Value(text).IsValid() {
		return "", "not strict JSON"
	}
	if kind := jsontext.Value(text).Kind(); kind != jsontext.KindBeginObject && kind != jsontext.KindBeginArray {
		return "", "not a JSON object or list"
	}
	if clean, ok := r.strict(text, paths, 0); ok {
		return clean, ""
	}
	return "", "nested too deep"
}

// strict redacts strict JSON, which is nested depth levels deep in another one. It
// reports false if the whole is nested too deep. Text without anything to redact is
// returned as it is.
func (r *redactor) strict(text string, paths []path, depth int) (string, bool) {
	w := &walker{redactor: r, Decoder: jsontext.NewDecoder(bytes.NewBufferString(text)), depth: depth}
	w.value(paths)
	switch {
	case w.failed:
		return "", false
	case w.changed:
		return string(w.out), true
	}
	return text, true
}

// walker writes a JSON text again, without what is to be redacted.
type walker struct {
	*redactor
	*jsontext.Decoder

	out     []byte
	depth   int
	changed bool
	failed  bool
}

func (w *walker) redact() {
	w.out = append(w.out, `"`+redacted+`"`...)
	w.changed = true
}

// raw reads a value or a name as it was written.
func (w *walker) raw() jsontext.Value {
	v, err := w.ReadValue()
	w.failed = w.failed || err != nil
	return v
}

func (w *walker) token() {
	_, err := w.ReadToken()
	w.failed = w.failed || err != nil
}

// value copies a value, without what the paths name below it.
func (w *walker) value(paths []path) {
	if w.depth+w.StackDepth() > maxNesting {
		w.failed = true
	}
	if w.failed {
		return
	}
	switch kind := w.PeekKind(); kind {
	case jsontext.KindBeginObject:
		w.composite('{', '}', func() {
			name := w.raw().Clone()
			w.out = append(append(w.out, name...), ':')
			key, _ := jsontext.AppendUnquote(nil, name)
			below, whole := match(string(key), paths)
			if whole {
				w.failed = w.failed || w.SkipValue() != nil
				w.redact()
				return
			}
			w.value(below)
		})
	case jsontext.KindBeginArray:
		w.composite('[', ']', func() { w.value(paths) })
	case jsontext.KindString:
		v := w.raw()
		text, _ := jsontext.AppendUnquote(nil, v)
		clean := w.text(string(text), paths, w.depth+w.StackDepth())
		if clean == string(text) {
			w.out = append(w.out, v...)
			return
		}
		w.out, _ = jsontext.AppendQuote(w.out, clean)
		w.changed = true
	default:
		w.out = append(w.out, w.raw()...)
	}
}

// composite copies an object or a list by calling element for each member.
func (w *walker) composite(begin, end byte, element func()) {
	w.token()
	w.out = append(w.out, begin)
	for first := true; !w.failed && w.PeekKind() != jsontext.Kind(end); first = false {
		if !first {
			w.out = append(w.out, ',')
		}
		element()
	}
	if !w.failed {
		w.token()
	}
	w.out = append(w.out, end)
}

// match returns the rests of the paths below a key, and reports whether one of
// them names the key itself.
func match(key string, paths []path) (below []path, whole bool) {
	for _, steps := range readings(key) {
		for _, p := range paths {
			n := min(len(steps), len(p))
			switch {
			case n == 0 || !matches(steps[:n], p[:n]):
			case n == len(p):
				return nil, true
			default:
				below = append(below, p[n:])
			}
		}
	}
	return below, false
}

// readings returns the steps that a key may stand for. A key such as
// config.hosts[1].name, as forms have them, stands for several, without the
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

func matches(steps []string, p path) bool {
	for i := range p {
		if p[i] != "*" && p[i] != steps[i] {
			return false
		}
	}
	return true
}
