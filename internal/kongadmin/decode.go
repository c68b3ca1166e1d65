package kongadmin

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/kong-cloudtrail/relay/internal/audit"
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
	var b strings.Builder
	b.Grow(int(max(resp.ContentLength, 4096)))
	n, err := io.Copy(&b, io.LimitReader(resp.Body, limit+1))
	if n > limit {
		return "", fmt.Errorf("%w: more than %d bytes", audit.ErrPageTooLarge, limit)
	}
	if err != nil {
		return "", fmt.Errorf("answer broke off after %d bytes: %w", n, err)
	}
	return b.String(), nil
}

// message takes the reason out of a refusal, shortened, on one line and without
// the token: Kong's own words, or the title of an HTML page of whatever stands before it.
func message(resp *http.Response, token string) string {
	var b strings.Builder
	// What broke off is still a refusal.
	io.Copy(&b, io.LimitReader(resp.Body, maxRefusal)) //nolint:errcheck // see above
	raw := b.String()
	s := field(raw, "message")
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
	p := scanner{s: raw}
	if p.peek() != '{' {
		p.value(maxDepth)
		wrong("answer is JSON without a list called data")
	} else {
		for more := p.open('{', '}'); more; more = p.more('}') {
			name := p.name().text()
			switch name {
			case "data":
				wrong(p.rows(&page, verify))
			case "offset", "next":
				v := p.value(maxDepth)
				switch {
				case v.kind != kindNull && v.kind != kindText && v.kind != kindNumber:
					wrong("answer is JSON in which " + name + " is no text")
				case name == "next":
					next = v.text()
				default:
					page.Offset = v.text()
				}
			default:
				p.value(maxDepth)
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
	if !p.end() {
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

// rows reads the list called data into the page, and says what is wrong with it
// if it is no such list.
func (p *scanner) rows(page *audit.Page, verify rowVerifier) (problem string) {
	switch p.peek() {
	case '[':
	case '{':
		// Lua's JSON encoder has no empty array unless told: {} is an empty list.
		if p.open('{', '}') {
			problem = "answer is JSON in which data is not a list"
			for more := true; more; more = p.more('}') {
				p.name()
				p.value(maxDepth)
			}
		}
		return problem
	default:
		p.value(maxDepth)
		return "answer is JSON in which data is not a list"
	}
	for more := p.open('[', ']'); more; more = p.more(']') {
		if p.peek() != '{' {
			p.value(maxDepth)
			problem = fmt.Sprintf("row %d of data is not an object", len(page.Entries))
			continue
		}
		begin := p.i
		var e audit.Entry
		p.entry(&e)
		if verify != nil && !p.bad {
			e.Verification = verify(p.s[begin:p.i])
		}
		if page.Entries == nil {
			// Rows of a log are of much the same length: one half more is room enough.
			page.Entries = make([]audit.Entry, 0, min(1000, 1+(len(p.s)-begin)/(p.i-begin)*3/2))
		}
		page.Entries = append(page.Entries, e)
	}
	return problem
}

// entry reads one row. Every field may be null, missing or of another type than
// documented: a text that is none is kept as it was written, and a number that is
// none among the unknown fields. Of fields that come twice the last one counts.
func (p *scanner) entry(e *audit.Entry) {
	e.TTL = audit.NoTTL
	p.unknown = p.unknown[:0]
	for more := p.open('{', '}'); more; more = p.more('}') {
		name := p.name()
		v := p.value(maxDepth)
		if p.bad {
			return
		}
		switch key := name.text(); key {
		case "request_id":
			e.RequestID = v.text()
		case "request_timestamp":
			e.Timestamp, _ = p.integer(name, v)
		case "client_ip":
			e.ClientIP = v.text()
		case "method":
			e.Method = v.text()
		case "path":
			e.Path = v.text()
		case "status":
			n, _ := p.integer(name, v)
			e.Status = int(n)
		case "ttl":
			e.TTL = audit.NoTTL
			if n, ok := p.integer(name, v); ok {
				e.TTL = max(n, 0) // below 0 it is overdue
			}
		case "workspace":
			e.Workspace = v.text()
		case "payload":
			e.Payload = v.text()
		case "removed_from_payload":
			e.RemovedFromPayload = v.text()
		case "signature":
			e.Signature = v.text()
		case "rbac_user_id":
			e.RBACUserID = v.text()
		case "rbac_user_name":
			e.RBACUserName = v.text()
		case "request_source":
			e.RequestSource = v.text()
		default:
			if v.kind != kindNull || len(p.unknown) > 0 {
				p.keep(name, v)
			}
		}
	}
	e.Unknown = p.unknownObject()
	e.ID = audit.Identity(e)
}

// integer is the value of a field that ought to be a number. One that is not, and
// not null either, is kept among the unknown fields.
func (p *scanner) integer(name, v value) (int64, bool) {
	n, ok := v.integer()
	switch {
	case !ok:
		p.keep(name, v)
	case len(p.unknown) > 0: // an earlier one of that name may have been kept
		p.keep(name, value{raw: "null"})
	}
	return n, ok
}

// keep notes an unknown field.
func (p *scanner) keep(name, v value) {
	key := name.text()
	if len(p.unknown) == 0 {
		if p.known == nil {
			p.known = map[string]int{}
		}
		clear(p.known)
	}
	if at, ok := p.known[key]; ok {
		p.unknown[at].raw = v.raw
		return
	}
	p.known[key] = len(p.unknown)
	p.unknown = append(p.unknown, member{name.raw, v.raw})
}

// unknownObject is the unknown fields as a JSON object, empty for none. Null
// means absent.
func (p *scanner) unknownObject() string {
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
			if v := field(raw, "version"); v != "" {
				return v
			}
		}
	}
	return serverVersion(resp.Header.Get("Server"))
}
