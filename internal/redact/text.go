package redact

import (
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/changes"
)

// text redacts a string, in which the given paths go on and all others may begin:
// JSON within a string is looked into, and what names a path's key beside a value is
// replaced as a whole.
func (r *redactor) text(s string, paths []path, depth int) string {
	if !strings.ContainsAny(s, "=:{[\"") { // as nearly all are
		return s
	}
	trimmed := strings.TrimSpace(strings.TrimPrefix(s, "\uFEFF"))
	if trimmed == "" {
		return s
	}
	all := slices.Concat(r.roots, paths)
	if strings.IndexByte(`{["`, trimmed[0]) >= 0 {
		nearly := strings.ContainsAny(trimmed, "\"'") && (trimmed[0] != '"' || strings.ContainsAny(trimmed, ":="))
		if jsontext.Value(s).IsValid() {
			if clean, ok := r.strict(s, all, depth); ok {
				return clean
			}
			return redacted
		} else if nearly {
			return redacted
		}
	}
	if slices.ContainsFunc(all, func(p path) bool { return mentions(s, p) }) {
		return redacted
	}
	return s
}

// mentions reports whether a plain text seems to hold a value for the last key of a
// path, such as api_key=secret.
func mentions(s string, p path) bool {
	if !strings.ContainsAny(s, "=:") {
		return false
	}
	for _, step := range slices.Backward(p) {
		if step != "*" {
			return strings.Contains(strings.ToLower(unescape(s)), strings.ToLower(step))
		}
	}
	return true
}

// unescape undoes percent-encoding, as often as it was done, within reason.
func unescape(s string) string {
	for range 4 {
		plain, err := url.QueryUnescape(s)
		if err != nil || plain == s {
			break
		}
		s = plain
	}
	return s
}

// urlPath redacts the segments of a request's path, without its query.
func (r *redactor) urlPath(p string) string {
	all := strings.Split(p, "/")
	for i, segment := range all {
		if plain := unescape(segment); r.text(plain, nil, 0) != plain {
			all[i] = redacted
		}
	}
	return strings.Join(all, "/")
}

// query redacts a query string. It returns a reason if the query must be withheld. A semicolon
// separates as an ampersand does, unless it is part of a value that is redacted: to Kong it
// separates nothing.
func (r *redactor) query(query string) (clean, reason string) {
	var b strings.Builder
	var goesOn bool // what is redacted goes on behind a semicolon
	for query != "" {
		pair, separator := query, ""
		if at := strings.IndexAny(query, "&;"); at >= 0 {
			pair, separator, query = query[:at], query[at:at+1], query[at+1:]
		} else {
			query = ""
		}
		name, value, ok := strings.Cut(pair, "=")
		key := unescape(name)
		if _, err := url.QueryUnescape(key); err != nil && strings.Contains(name, "%") {
			return "", "query with a name that is not percent-encoded"
		}
		below, whole := match(key, r.roots)
		whole = whole || r.secrets && changes.SecretName(key)
		plain := unescape(value)
		secret := ok && r.text(plain, below, 0) != plain || !ok && r.text(key, nil, 0) != key // such as a%3Dsecret
		switch {
		case goesOn, secret && !ok:
			pair = redacted
		case ok && (whole || secret):
			pair = name + "=" + redacted
		}
		goesOn = separator == ";" && (goesOn || whole || secret)
		b.WriteString(pair + separator)
	}
	return b.String(), ""
}
