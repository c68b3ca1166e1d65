package changes

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Masker hides the secrets of entities. It is safe for concurrent use.
type Masker struct {
	key   []byte
	paths [][]string // of secrets beside those of the table
}

// NewMasker returns a masker. The digests that it puts in the place of secrets are keyed,
// so that a digest says only whether a secret has changed. paths name more secrets, as
// those of --redact do: dotted, with * for any name.
func NewMasker(key []byte, paths []string) *Masker {
	m := &Masker{key: key}
	for _, p := range paths {
		m.paths = append(m.paths, strings.Split(p, "."))
	}
	return m
}

// Mask returns the state of an entity of some kind: its text with a keyed digest in the
// place of each secret. removed are the comma-joined names that Kong took out of the
// entity, which are secrets wherever else they occur. A text that is not strict JSON, or
// is nested too deep, is a secret as a whole.
func (m *Masker) Mask(kind, key, text, removed string) State {
	hide := func(name, value string) string { return m.digest(kind, key, name, value) }
	n, ok := parse(text)
	switch {
	case ok:
		v := newVisitor(kind, n, hide, m.paths, removed)
		return State(encode(v.value(n, "", v.paths)))
	case strings.TrimSpace(text) == "":
		return ""
	}
	return State(encode(hide("", text)))
}

func (m *Masker) digest(parts ...string) string {
	h := hmac.New(sha256.New, m.key)
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return "[secret " + hex.EncodeToString(h.Sum(nil)[:16]) + "]"
}

// Hide returns a JSON text with another text in the place of each secret, where the
// text is an entity of some kind or what is to become one. The kind may be unknown. A text
// without secrets is returned as it is, and one that is not strict JSON is returned
// with ok false.
func Hide(kind, text, instead string) (hidden string, ok bool) {
	n, ok := parse(text)
	if !ok {
		return "", false
	}
	v := newVisitor(kind, n, func(_, _ string) string { return instead }, nil, "")
	clean := v.value(n, "", v.paths)
	if !v.changed {
		return text, true
	}
	return string(encode(clean)), true
}

// visitor goes over one entity.
type visitor struct {
	hide    func(name, value string) string
	kind    string
	headers bool // values of headers are secrets
	paths   [][]string
	removed []string
	changed bool
}

// newVisitor returns a visitor of an entity, which finds out which of its fields are secrets.
func newVisitor(kind string, n any, hide func(name, value string) string, more [][]string, removed string) *visitor {
	v := &visitor{hide: hide, kind: kind, headers: kind != "routes" && kind != "services" && kind != "consumers", paths: slices.Clone(more)}
	fields := slices.Clone(secretFields[kind])
	if kind == "plugins" {
		fields = append(fields, pluginFields(n)...)
	}
	for _, f := range fields {
		v.paths = append(v.paths, strings.Split(f, "."))
	}
	for name := range strings.SplitSeq(removed, ",") {
		if name = strings.TrimSpace(name); name != "" {
			v.removed = append(v.removed, name)
		}
	}
	return v
}

// pluginFields returns the fields of a plugin that hold secrets: those of every plugin if it
// has no name, as in a PATCH.
func pluginFields(n any) (fields []string) {
	o, _ := n.(map[string]any)
	if name, ok := o["name"].(string); ok {
		plugin := "plugins/" + name
		return append(slices.Clone(secretFields[strings.TrimSuffix(plugin, "-advanced")]), secretFields[plugin]...)
	}
	for kind, of := range secretFields {
		if strings.HasPrefix(kind, "plugins/") {
			fields = append(fields, of...)
		}
	}
	return fields
}

// value returns a value without its secrets. name is that of the field that holds it, and
// paths are what remains of those of secrets below it.
func (v *visitor) value(n any, name string, paths [][]string) any {
	switch n := n.(type) {
	case map[string]any:
		o := make(map[string]any, len(n))
		for key, value := range n {
			below, secret := descend(paths, key)
			switch {
			case pairs[key] && v.pair(n): // {"name":"Authorization","value":"…"}
				o[key] = v.secret(key, value)
			case secret, slices.Contains(v.removed, key), named(key, value), v.headers && name == "headers" && !nested(value):
				o[key] = v.secret(key, value)
			default:
				o[key] = v.value(value, key, below)
			}
		}
		return o
	case []any:
		if v.kind == "plugins" && arguments[name] {
			name = "headers"
		}
		l := make([]any, len(n))
		for i := range n {
			l[i] = v.value(n[i], name, paths)
		}
		return l
	case string:
		return v.text(n, name)
	}
	return n
}

// arguments are the lists of a plugin whose texts are name:value, as its headers are.
var arguments = map[string]bool{"body": true, "querystring": true, "json": true}

// pairs are the fields that hold the value of what another field names.
var pairs = map[string]bool{"value": true, "values": true, "default": true}

// pair reports whether an object gives a secret's name in one field, and thus its value
// in another.
func (v *visitor) pair(o map[string]any) bool {
	for _, field := range []string{"name", "key", "header", "header_name", "param", "field"} {
		if name, ok := o[field].(string); ok && SecretName(name) {
			return true
		}
	}
	return false
}

// named reports whether a field is a secret by its name. A reference to another entity
// is not a secret, and what is true, false or null says nothing.
func named(key string, value any) bool {
	if !SecretName(key) || reference(value) {
		return false
	}
	words := wordsOf(key)
	switch value.(type) {
	case map[string]any:
		return words[len(words)-1] != "auth" // a group of settings
	case string, []any:
		return true
	}
	return words[len(words)-1] != "tokens" && !slices.Contains(words, "per") // max_tokens, input_cost_per_token
}

// reference reports whether a value refers to another entity.
func reference(n any) bool {
	o, _ := n.(map[string]any)
	id, _ := o["id"].(string)
	return len(o) == 1 && len(id) == 36 && strings.Count(id, "-") == 4
}

func nested(n any) bool { _, ok := n.(map[string]any); return ok }

// secret returns the replacement of a secret value.
func (v *visitor) secret(name string, n any) any {
	if _, isBool := n.(bool); isBool || n == nil || n == any("") || empty(n) {
		return n
	}
	v.changed = true
	return v.hide(name, string(encode(n)))
}

func (v *visitor) text(text, name string) any {
	if t := strings.TrimSpace(text); t != "" && (t[0] == '{' || t[0] == '[') {
		if n, ok := parse(t); ok {
			inner := *v
			inner.changed = false
			if clean := inner.value(n, name, v.paths); inner.changed {
				v.changed = true
				return string(encode(clean))
			}
			return text
		}
	}
	if wholeSecret(text) {
		return v.secret(name, text)
	}
	if !strings.ContainsAny(text, "=:") {
		return text
	}
	var clean string
	if m := headerLine.FindStringSubmatch(text); m != nil && (SecretName(m[1]) || v.headers && name == "headers") {
		clean = strings.TrimSuffix(text, m[2]) + v.hide(m[1], m[2])
	} else {
		clean = v.parts(text)
	}
	v.changed = v.changed || clean != text
	return clean
}

// parts hides what within a text is a secret: in URLs and in assignments.
func (v *visitor) parts(text string) string {
	for _, re := range partSecrets {
		var b strings.Builder
		at := 0
		for _, m := range re.FindAllStringSubmatchIndex(text, -1) {
			last := len(m) - 2
			if last > 2 && !SecretName(text[m[2]:m[3]]) {
				continue
			}
			b.WriteString(text[at:m[last]])
			b.WriteString(v.hide("", text[m[last]:m[last+1]]))
			at = m[last+1]
		}
		b.WriteString(text[at:])
		text = b.String()
	}
	return text
}

// descend returns the rests of paths below a key, and reports whether one of them
// names the key itself.
func descend(paths [][]string, key string) (below [][]string, whole bool) {
	for _, p := range paths {
		switch {
		case len(p) > 1 && p[0] == "**":
			below = append(below, p)
			deeper, named := descend([][]string{p[1:]}, key)
			below, whole = append(below, deeper...), whole || named
		case len(p) == 0 || p[0] != "*" && p[0] != key:
		case len(p) == 1:
			whole = true
		default:
			below = append(below, p[1:])
		}
	}
	return below, whole
}
