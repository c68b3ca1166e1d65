package kongadmin

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// integer returns the value of a field that ought to be a number. A value that is
// neither a number nor null is kept among the unknown fields.
func (r *pageReader) integer(name string, raw []byte) (int64, bool) {
	n, ok := parseInteger(string(r.unquoted(raw)))
	switch {
	case !ok && (!isNull(raw) || !r.unknown.empty()):
		r.unknown.set(strconv.Quote(name), name, string(raw))
	case ok && !r.unknown.empty(): // an earlier one of that name may have been kept
		r.unknown.set(strconv.Quote(name), name, "null")
	}
	return n, ok
}

// parseInteger reads a JSON number, without what comes after its point. It fails
// for everything that no int64 can hold.
func parseInteger(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	if !jsontext.Value(s).IsValid() || jsontext.Value(s).Kind() != jsontext.KindNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f < math.MinInt64 || f >= math.MaxInt64 {
		return 0, false
	}
	return int64(f), true
}

// Bounds of a timestamp in seconds: Kong is younger than the
// first, and a row that is newer than both clocks by the second means nothing.
const (
	earliest = 631152000 // 1990-01-01
	ahead    = 48 * time.Hour
)

// timestamp replaces a timestamp that is not in seconds by what it means, and one
// that means nothing by the date of the page. Of the latter, what Kong sent is kept
// among the unknown fields.
func (r *pageReader) timestamp(e *audit.Entry) {
	latest := r.latest
	plausible := func(t int64) bool { return t >= earliest && t <= latest }
	if plausible(e.Timestamp) {
		return
	}
	e.TimestampGuessed = true
	for _, unit := range []int64{1e3, 1e6, 1e9} {
		if t := e.Timestamp / unit; plausible(t) {
			e.Timestamp = t
			return
		}
	}
	const name = "request_timestamp"
	if t, ok := parseTime(string(r.unquoted(r.rawTime))); ok && plausible(t) {
		e.Timestamp = t
		r.unknown.set(strconv.Quote(name), name, "null")
		return
	}
	e.Timestamp = r.date.Unix()
	if !isNull(r.rawTime) {
		r.unknown.set(strconv.Quote(name), name, string(r.rawTime))
	}
}

// parseTime reads a time as text. Without a zone it is UTC.
func parseTime(s string) (int64, bool) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05-07",
	} {
		if t, err := time.Parse(layout, strings.TrimSpace(s)); err == nil {
			return t.Unix(), true
		}
	}
	return 0, false
}

// unknownFields are the fields of a row that this version does not know, in their order.
type unknownFields struct {
	fields []unknownField
	at     map[string]int
}

// unknownField is a field as it was written.
type unknownField struct{ name, raw string }

func (u *unknownFields) empty() bool { return len(u.fields) == 0 }

func (u *unknownFields) reset() {
	u.fields = u.fields[:0]
	clear(u.at)
}

// set keeps a field; key is its name without quotes and escapes. Of fields of one
// name the last one counts.
func (u *unknownFields) set(name, key, raw string) {
	if u.at == nil {
		u.at = map[string]int{}
	}
	key = strings.ToValidUTF8(key, "\uFFFD")
	if at, ok := u.at[key]; ok {
		u.fields[at].raw = raw
		return
	}
	u.at[key] = len(u.fields)
	u.fields = append(u.fields, unknownField{name, raw})
}

// object returns the fields as a JSON object, or the empty string for none. Null
// means absent.
func (u *unknownFields) object() string {
	if u.empty() {
		return ""
	}
	join := func(strict bool) string {
		var b []byte
		for _, f := range u.fields {
			if f.raw == "null" {
				continue
			}
			if strict {
				f.name, f.raw = strictJSON(f.name), strictJSON(f.raw)
			}
			b = append(append(append(append(b, ','), f.name...), ':'), f.raw...)
		}
		if len(b) == 0 {
			return ""
		}
		b[0] = '{'
		return string(append(b, '}'))
	}
	object := join(false)
	if object != "" && !jsontext.Value(object).IsValid() {
		return join(true)
	}
	return object
}

// strictJSON returns a value that every decoder takes: what is not Unicode is
// replaced, and a value with names that come twice becomes a string of its text.
func strictJSON(raw string) string {
	if jsontext.Value(raw).IsValid() {
		return raw
	}
	v, err := jsontext.AppendFormat(nil, raw, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		v, _ = jsontext.AppendQuote(nil, raw) // replaces what is not UTF-8, and says so
	}
	return string(v)
}
