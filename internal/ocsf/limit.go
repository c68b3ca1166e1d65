package ocsf

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// MaxEvent is the most that an event takes, in bytes.
const MaxEvent = 256_000

// What the parts of an event may take, in bytes of JSON text. All of them together
// are less than [MaxEvent].
const (
	maxShort   = 1024
	maxLong    = 4096
	maxRemoved = 16_000
	maxUnknown = 24_000
	maxQuery   = 24_000
	maxPayload = 80_000
	maxRaw     = 64_000
)

// cutting describes a value that was cut: its length and its hash.
type cutting struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// cutter cuts what is too long, and remembers it.
type cutter struct{ cuts map[string]cutting }

func (c *cutter) cut(path, s string) {
	if c.cuts == nil {
		c.cuts = map[string]cutting{}
	}
	sum := sha256.Sum256([]byte(s))
	c.cuts[path] = cutting{Bytes: len(s), SHA256: hex.EncodeToString(sum[:])}
}

// text returns the longest beginning of s that takes at most limit bytes as a JSON string.
func (c *cutter) text(path, s string, limit int) string {
	fits := audit.Fit(s, limit)
	if len(fits) < len(s) {
		c.cut(path, s)
	}
	return fits
}

// value returns s as it is if it is a JSON object within the limit, else as a JSON string.
func (c *cutter) value(path, s string, limit int) jsontext.Value {
	o := jsontext.Value(strings.TrimSpace(s))
	if len(o) <= limit/3 && audit.IsObject(o) {
		return o
	}
	text, _ := jsontext.AppendQuote(nil, c.text(path, s, limit)) // the error only reports bytes that are not UTF-8
	return text
}

// raw adds the entry as it was read, after redaction, or its size and hash if it is too long.
func (ev *event) raw(c *cutter, e *audit.Entry) {
	entry := *e
	entry.Changes = "" // which Kong did not record
	text, err := json.Marshal(&entry, options...)
	if err != nil { // strings and numbers always encode
		return
	}
	raw := string(text)
	var all cutter
	if all.text("raw_data", raw, maxRaw) == raw {
		ev.RawData = raw
		return
	}
	ev.withoutRaw(c, raw)
}

// withoutRaw puts hash and size in the place of raw_data.
func (ev *event) withoutRaw(c *cutter, raw string) {
	c.cut("raw_data", raw)
	ev.RawData = ""
	ev.RawDataHash = &fingerprint{AlgorithmID: 3, Value: c.cuts["raw_data"].SHA256} // 3 is SHA-256
	ev.RawDataSize = len(raw)
}
