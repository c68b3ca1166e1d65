package kongadmin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/jsonscan"
)

const (
	// maxRow bounds a page of a single row. A payload is up to about 10 MiB (Kong's
	// documentation), and as text inside JSON it can grow sixfold.
	maxRow = 64 << 20
	// maxRefusal is how much of an answer that is no page is looked at.
	maxRefusal = 64 << 10
	// maxMessage bounds what of Kong's own words gets into an error.
	maxMessage = 200
)

// decode judges one answer. version is that of the gateway, or empty.
func (c *Client) decode(resp *http.Response, q audit.Query, token string) (page audit.Page, version string, err error) {
	if resp.StatusCode != http.StatusOK {
		r := &refusal{status: resp.StatusCode, message: message(resp, token)}
		if r.status == http.StatusBadRequest && q.Offset != "" && !r.isTLS() {
			return audit.Page{}, "", fmt.Errorf("%w: %w", audit.ErrBadOffset, r)
		}
		return audit.Page{}, "", r
	}
	limit := int64(c.opts.MaxBytes)
	if q.Size == 1 {
		limit = max(limit, maxRow)
	}
	// One copy, of which all of the page's strings are parts.
	raw, err := readBody(resp, limit)
	if err != nil {
		return audit.Page{}, "", err
	}
	if page, err = decodePage(raw, c.rowVerifier()); err != nil {
		return audit.Page{}, "", err
	}
	page.Bytes = len(raw)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		page.Date = date
	}
	return page, serverVersion(resp.Header.Get("Server")), nil
}

// readBody reads a body of at most limit bytes to its end.
func readBody(resp *http.Response, limit int64) (string, error) {
	if resp.ContentLength > limit {
		return "", fmt.Errorf("%w: %d bytes", audit.ErrPageTooLarge, resp.ContentLength)
	}
	text, err := jsonscan.Read(resp.Body, resp.ContentLength, limit)
	switch {
	case errors.Is(err, jsonscan.ErrTooLong):
		return "", fmt.Errorf("%w: more than %d bytes", audit.ErrPageTooLarge, limit)
	case err != nil:
		return "", fmt.Errorf("answer broke off after %d bytes: %w", len(text), err)
	}
	return text, nil
}

// message takes the reason out of a refusal, shortened, on one line and without
// the token: Kong's own words, or the title of an HTML page of whatever stands before it.
func message(resp *http.Response, token string) string {
	var b strings.Builder
	// What broke off is still a refusal.
	io.Copy(&b, io.LimitReader(resp.Body, maxRefusal)) //nolint:errcheck // see above
	raw := b.String()
	s := jsonscan.Field(raw, "message")
	if s == "" {
		if _, rest, ok := strings.Cut(raw, "<title>"); ok {
			s, _, _ = strings.Cut(rest, "</title>")
		} else if t := resp.Header.Get("Content-Type"); t == "" || strings.HasPrefix(t, "text/plain") {
			s = raw
		}
	}
	if token != "" {
		s = strings.ReplaceAll(s, token, "(token)")
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // it may be printed on a terminal
			return unicode.ReplacementChar
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	for i := range s {
		if i > maxMessage {
			return s[:i] + "…"
		}
	}
	return s
}

// decodePage reads the envelope {"data":[…],"offset":…,"next":…}. What is not
// exactly that is an error, for it could hide rows.
func decodePage(raw string, verify rowVerifier) (audit.Page, error) {
	var (
		page    audit.Page
		next    string
		seen    = map[string]bool{}
		problem string
	)
	wrong := func(what string) {
		if problem == "" {
			problem = what
		}
	}
	p := rowScanner{Scanner: jsonscan.New(raw), text: raw}
	if p.Peek() != '{' {
		p.Value()
		wrong("answer is JSON without a list called data")
	} else {
		for more := p.Open('{', '}'); more; more = p.More('}') {
			name := p.Name().Text()
			switch name {
			case "data":
				wrong(p.rows(&page, verify))
			case "offset", "next":
				v := p.Value()
				switch {
				case v.Kind != jsonscan.Null && v.Kind != jsonscan.Text && v.Kind != jsonscan.Number:
					wrong("answer is JSON in which " + name + " is no text")
				case name == "next":
					next = v.Text()
				default:
					page.Offset = v.Text()
				}
			default:
				p.Value()
				continue
			}
			if seen[name] {
				wrong("answer is JSON in which " + name + " comes twice")
			}
			seen[name] = true
		}
		if !seen["data"] {
			wrong("answer is JSON without a list called data")
		}
	}
	if !p.End() {
		problem = malformed(raw)
	}
	if problem != "" {
		return audit.Page{}, &notAPage{fmt.Sprintf("%s (%d bytes)", problem, len(raw))}
	}
	if page.Offset == "" && next != "" {
		// There is more, but the envelope has no offset of its own.
		u, err := url.Parse(next)
		if err != nil || u.Query().Get("offset") == "" {
			return audit.Page{}, &notAPage{"answer has a next page but no offset for it"}
		}
		page.Offset = u.Query().Get("offset")
	}
	return page, nil
}

// malformed says what a text looks like that is not JSON.
func malformed(raw string) string {
	switch s := strings.TrimSpace(raw[:min(len(raw), 512)]); {
	case s == "":
		return "answer is empty"
	case s[0] == '<':
		return "answer is HTML, not JSON"
	case s[0] == '{':
		return "answer is JSON that breaks off or is malformed"
	}
	return "answer is not JSON"
}

// rowScanner reads the rows of a page.
type rowScanner struct {
	jsonscan.Scanner
	text string

	// Unknown fields of the row at hand, in their order, and where each is.
	unknown []member
	known   map[string]int
}

// member is a field of an object, as it was written.
type member struct{ name, raw string }

// rows reads the list called data into the page, and says what is wrong with it
// if it is no such list.
func (p *rowScanner) rows(page *audit.Page, verify rowVerifier) (problem string) {
	switch p.Peek() {
	case '[':
	case '{':
		// Lua's JSON encoder has no empty array unless told: {} is an empty list.
		if p.Open('{', '}') {
			problem = "answer is JSON in which data is not a list"
			for more := true; more; more = p.More('}') {
				p.Name()
				p.Value()
			}
		}
		return problem
	default:
		p.Value()
		return "answer is JSON in which data is not a list"
	}
	for more := p.Open('[', ']'); more; more = p.More(']') {
		if p.Peek() != '{' {
			p.Value()
			problem = fmt.Sprintf("row %d of data is not an object", len(page.Entries))
			continue
		}
		begin := p.Offset()
		var e audit.Entry
		p.entry(&e)
		if verify != nil && !p.Failed() {
			e.Verification = verify(p.text[begin:p.Offset()])
		}
		if page.Entries == nil {
			// Rows of a log are of much the same length: one half more is room enough.
			page.Entries = make([]audit.Entry, 0, min(1000, 1+(len(p.text)-begin)/(p.Offset()-begin)*3/2))
		}
		page.Entries = append(page.Entries, e)
	}
	return problem
}

// entry reads one row. Every field may be null, missing or of another type than
// documented: a text that is none is kept as it was written, and a number that is
// none among the unknown fields. Of fields that come twice the last one counts.
func (p *rowScanner) entry(e *audit.Entry) {
	e.TTL = audit.NoTTL
	p.unknown = p.unknown[:0]
	for more := p.Open('{', '}'); more; more = p.More('}') {
		name := p.Name()
		v := p.Value()
		if p.Failed() {
			return
		}
		switch key := name.Text(); key {
		case "request_id":
			e.RequestID = v.Text()
		case "request_timestamp":
			e.Timestamp, _ = p.integer(name, v)
		case "client_ip":
			e.ClientIP = v.Text()
		case "method":
			e.Method = v.Text()
		case "path":
			e.Path = v.Text()
		case "status":
			n, _ := p.integer(name, v)
			e.Status = int(n)
		case "ttl":
			e.TTL = audit.NoTTL
			if n, ok := p.integer(name, v); ok {
				e.TTL = max(n, 0) // below 0 it is overdue
			}
		case "workspace":
			e.Workspace = v.Text()
		case "payload":
			e.Payload = v.Text()
			e.EmptyPayload = v.Kind == jsonscan.Text && e.Payload == ""
		case "removed_from_payload":
			e.RemovedFromPayload = v.Text()
		case "signature":
			e.Signature = v.Text()
		case "rbac_user_id":
			e.RBACUserID = v.Text()
		case "rbac_user_name":
			e.RBACUserName = v.Text()
		case "request_source":
			e.RequestSource = v.Text()
		default:
			if v.Kind != jsonscan.Null || len(p.unknown) > 0 {
				p.keep(name, v)
			}
		}
	}
	e.Unknown = p.unknownObject()
	e.ID = audit.Identity(e)
}

// integer is the value of a field that ought to be a number. One that is not, and
// not null either, is kept among the unknown fields.
func (p *rowScanner) integer(name, v jsonscan.Value) (int64, bool) {
	n, ok := v.Integer()
	switch {
	case !ok:
		p.keep(name, v)
	case len(p.unknown) > 0: // an earlier one of that name may have been kept
		p.keep(name, jsonscan.Value{Raw: "null"})
	}
	return n, ok
}

// keep notes an unknown field.
func (p *rowScanner) keep(name, v jsonscan.Value) {
	key := name.Text()
	if len(p.unknown) == 0 {
		if p.known == nil {
			p.known = map[string]int{}
		}
		clear(p.known)
	}
	if at, ok := p.known[key]; ok {
		p.unknown[at].raw = v.Raw
		return
	}
	p.known[key] = len(p.unknown)
	p.unknown = append(p.unknown, member{name.Raw, v.Raw})
}

// unknownObject is the unknown fields as a JSON object, empty for none. Null
// means absent.
func (p *rowScanner) unknownObject() string {
	size := 1
	for _, m := range p.unknown {
		size += len(m.name) + len(m.raw) + 2
	}
	if size == 1 {
		return ""
	}
	var b strings.Builder
	b.Grow(size)
	for _, m := range p.unknown {
		if m.raw == "null" {
			continue
		}
		if b.Len() == 0 {
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		b.WriteString(m.name)
		b.WriteByte(':')
		b.WriteString(m.raw)
	}
	if b.Len() == 0 {
		return ""
	}
	b.WriteByte('}')
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// maxRoot bounds an answer of GET /, which lists configuration and plugins.
const maxRoot = 4 << 20

// rootVersion reads the version out of an answer of GET /.
func rootVersion(resp *http.Response) string {
	if resp.StatusCode == http.StatusOK {
		if raw, err := readBody(resp, maxRoot); err == nil {
			if v := jsonscan.Field(raw, "version"); v != "" {
				return v
			}
		}
	}
	return serverVersion(resp.Header.Get("Server"))
}
