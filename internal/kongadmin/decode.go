package kongadmin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// decode judges one answer.
func (c *Client) decode(resp *http.Response, q audit.Query) (audit.Page, error) {
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return audit.Page{}, err
	}
	if resp.StatusCode != http.StatusOK {
		r := &refusal{status: resp.StatusCode, message: message(raw)}
		if resp.StatusCode == http.StatusBadRequest && q.Offset != "" {
			return audit.Page{}, fmt.Errorf("%w: %w", audit.ErrBadOffset, r)
		}
		return audit.Page{}, r
	}
	// One copy, of which all of the page's strings are parts.
	page, err := decodePage(string(raw))
	if err != nil {
		return audit.Page{}, err
	}
	page.Bytes = len(raw)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		page.Date = date
	}
	version := serverVersion(resp.Header.Get("Server"))
	for i := range page.Entries {
		e := &page.Entries[i]
		e.KongVersion = version
	}
	if c.opts.PublicKey != nil {
		i := 0
		gjson.Get(string(raw), "data").ForEach(func(_, row gjson.Result) bool {
			page.Entries[i].Verification = verify(c.opts.PublicKey, row)
			i++
			return true
		})
	}
	return page, nil
}

// message takes Kong's own words out of a refusal, shortened and on one line.
func message(raw []byte) string {
	var s string
	if gjson.ValidBytes(raw) {
		s = gjson.GetBytes(raw, "message").String()
	}
	if s = strings.Join(strings.Fields(s), " "); len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// decodePage reads the envelope {"data":[…],"offset":…,"next":…}.
func decodePage(raw string) (audit.Page, error) {
	if !gjson.Valid(raw) {
		what := "answer is not JSON"
		if strings.HasPrefix(strings.TrimSpace(raw[:min(len(raw), 512)]), "<") {
			what = "answer is HTML, not JSON"
		} else if strings.HasPrefix(raw, "{") {
			what = "answer is JSON that breaks off or is malformed"
		}
		return audit.Page{}, &notAPage{fmt.Sprintf("%s (%d bytes)", what, len(raw))}
	}
	var (
		page       audit.Page
		data, next gjson.Result
		problem    error
	)
	gjson.Parse(raw).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "data":
			data = value
		case "offset":
			page.Offset = text(value)
		case "next":
			next = value
		}
		return true
	})
	switch {
	case data.IsArray():
	case data.IsObject() && strings.Trim(data.Raw, "{} \t\r\n") == "":
		// Lua's JSON encoder has no empty array unless told: {} is an empty list.
	case !data.Exists():
		return audit.Page{}, &notAPage{"answer is JSON without a list called data"}
	default:
		return audit.Page{}, &notAPage{"answer is JSON in which data is not a list"}
	}
	if data.IsArray() {
		page.Entries = make([]audit.Entry, 0, min(1000, strings.Count(data.Raw, `"request_id"`)+1))
		data.ForEach(func(_, row gjson.Result) bool {
			if !row.IsObject() {
				problem = &notAPage{fmt.Sprintf("row %d of data is not an object", len(page.Entries))}
				return false
			}
			page.Entries = append(page.Entries, decodeEntry(row))
			return true
		})
		if problem != nil {
			return audit.Page{}, problem
		}
	}
	if page.Offset == "" && next.Type == gjson.String && next.Str != "" {
		// There is more, but the envelope has no offset of its own.
		u, err := url.Parse(next.Str)
		if err != nil || u.Query().Get("offset") == "" {
			return audit.Page{}, &notAPage{"answer has a next page but no offset for it"}
		}
		page.Offset = u.Query().Get("offset")
	}
	return page, nil
}

// decodeEntry reads one row. Every field may be null, missing or of another
// type than documented: what cannot be understood is kept as text.
func decodeEntry(row gjson.Result) audit.Entry {
	e := audit.Entry{TTL: audit.NoTTL}
	var unknown []byte
	row.ForEach(func(key, v gjson.Result) bool {
		if v.Type == gjson.Null {
			return true
		}
		switch key.Str {
		case "request_id":
			e.RequestID = text(v)
		case "request_timestamp":
			e.Timestamp = v.Int()
		case "client_ip":
			e.ClientIP = text(v)
		case "method":
			e.Method = text(v)
		case "path":
			e.Path = text(v)
		case "status":
			e.Status = int(v.Int())
		case "ttl":
			e.TTL = max(v.Int(), 0)
		case "workspace":
			e.Workspace = text(v)
		case "payload":
			e.Payload = text(v)
		case "removed_from_payload":
			e.RemovedFromPayload = text(v)
		case "signature":
			e.Signature = text(v)
		case "rbac_user_id":
			e.RBACUserID = text(v)
		case "rbac_user_name":
			e.RBACUserName = text(v)
		case "request_source":
			e.RequestSource = text(v)
		default:
			if unknown == nil {
				unknown = append(unknown, '{')
			} else {
				unknown = append(unknown, ',')
			}
			unknown = append(unknown, key.Raw...)
			unknown = append(unknown, ':')
			unknown = append(unknown, v.Raw...)
		}
		return true
	})
	if unknown != nil {
		unknown = append(unknown, '}')
		if !utf8.Valid(unknown) {
			unknown = bytes.ToValidUTF8(unknown, []byte("\uFFFD"))
		}
		e.Unknown = string(unknown)
	}
	e.ID = audit.Identity(&e)
	return e
}

// text is a string's value, and any other value as it was written.
func text(v gjson.Result) string {
	switch v.Type {
	case gjson.String:
		return v.Str
	case gjson.Null:
		return ""
	default:
		return v.Raw
	}
}

// rootVersion reads the version out of an answer of GET /.
func rootVersion(resp *http.Response) string {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK || !gjson.ValidBytes(raw) {
		return serverVersion(resp.Header.Get("Server"))
	}
	if v := gjson.GetBytes(raw, "version"); v.Type == gjson.String && v.Str != "" {
		return v.Str
	}
	return serverVersion(resp.Header.Get("Server"))
}
