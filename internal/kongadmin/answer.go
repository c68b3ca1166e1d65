package kongadmin

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/echo"
)

const (
	// maxRow bounds a page of a single row. A payload is up to about 10 MiB (Kong's
	// documentation), and as text inside JSON it can grow sixfold.
	maxRow = 64 << 20
	// maxRefusal is how much of an answer that is not a page is read.
	maxRefusal = 64 << 10
	// maxMessage bounds how much of Kong's own message gets into an error.
	maxMessage = 200
	// maxRoot bounds an answer of GET /, which lists configuration and plugins.
	maxRoot = 4 << 20
	// maxKept is how many times Options.MaxBytes a buffer that is used again may have. One
	// that grew to hold a single large row would otherwise stay for as long as pages are read.
	maxKept = 4
)

// decode judges one answer. version is that of the gateway, or empty.
func (c *Client) decode(resp *http.Response, log logName, q audit.Query, secrets echo.Secrets) (page audit.Page, version string, err error) {
	if resp.StatusCode != http.StatusOK {
		return audit.Page{}, "", newRefusal(resp, q, secrets)
	}
	limit := int64(c.opts.MaxBytes)
	if q.Size == 1 {
		limit = max(limit, maxRow)
	}
	buffer := c.bodies.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= maxKept*c.opts.MaxBytes {
			c.bodies.Put(buffer)
		}
	}()
	body, err := readBody(resp, buffer, limit)
	if err != nil {
		return audit.Page{}, "", err
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	clock := date
	if err != nil {
		clock = time.Now()
	}
	if q.Preview != nil {
		sendPreview(q.Preview, body)
	}
	if page, err = newPageReader(body, log, clock, c.opts.PublicKey).decode(); err != nil {
		return audit.Page{}, "", err
	}
	page.Bytes, page.Date = len(body), date
	version = serverVersion(resp.Header.Get("Server"))
	if secrets.In(version) {
		version = ""
	}
	return page, version, nil
}

// newRefusal returns the error of an answer other than 200.
func newRefusal(resp *http.Response, q audit.Query, secrets echo.Secrets) error {
	r := &refusal{status: resp.StatusCode, server: intermediary(resp)}
	text, all := message(resp)
	if secrets.In(text) {
		text = echo.Withheld
	}
	if secrets.In(r.server) {
		r.server = echo.Withheld
	}
	r.message = shorten(text)
	if r.status != http.StatusBadRequest || r.plainToTLS() || r.wantsCertificate() {
		return r
	}
	switch names := unknownParameter.MatchString(all); {
	case (q.After != 0 || q.Ascending) && (names || q.Offset == "" && !strings.Contains(all, "size")):
		return fmt.Errorf("%w: %w", audit.ErrUnsupportedQuery, r)
	case q.Offset != "":
		return fmt.Errorf("%w: %w", audit.ErrBadOffset, r)
	}
	return r
}

// intermediary returns the name of what answered in Kong's place, by its Server header, or
// the empty string if Kong may have answered itself. Kong answers in JSON.
func intermediary(resp *http.Response) string {
	server := resp.Header.Get("Server")
	if resp.Header.Get(requestIDHeader) != "" || strings.HasPrefix(strings.ToLower(server), "kong") {
		return ""
	}
	if server == "" && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		return "something without a name"
	}
	return shorten(server)
}

// unknownParameter finds what a release without filters refuses.
var unknownParameter = regexp.MustCompile(`\b(after|sort_by|sort_desc)\b`)

const (
	byteOrderMark = "\uFEFF"
	gzipMagic     = "\x1f\x8b"
)

// readBody reads a body of at most limit bytes to its end, and decompresses one that came
// compressed although nobody asked for it. The body may lie in buffer.
func readBody(resp *http.Response, buffer *bytes.Buffer, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes", audit.ErrPageTooLarge, resp.ContentLength)
	}
	body, err := readAll(buffer, resp.Body, max(resp.ContentLength, 0), limit)
	if err != nil {
		return nil, err
	}
	switch coding := strings.ToLower(resp.Header.Get("Content-Encoding")); {
	case bytes.HasPrefix(body, []byte(gzipMagic)): // whatever the header says
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = readAll(new(bytes.Buffer), z, int64(4*len(body)), limit)
		}
		if err != nil {
			return nil, fmt.Errorf("decompressing the answer: %w", err)
		}
	case coding == "", coding == "identity", strings.HasSuffix(coding, "gzip"): // gzip in name only
	default:
		return nil, &notAPage{"answer has a Content-Encoding that was not asked for and is not gzip"}
	}
	return bytes.TrimPrefix(body, []byte(byteOrderMark)), nil
}

// readAll reads at most limit bytes to the end. It makes room for about size at once.
func readAll(buffer *bytes.Buffer, r io.Reader, size, limit int64) ([]byte, error) {
	buffer.Reset()
	buffer.Grow(int(min(size, limit, 16<<20)) + bytes.MinRead)
	switch n, err := buffer.ReadFrom(io.LimitReader(r, limit+1)); {
	case n > limit:
		return nil, fmt.Errorf("%w: more than %d bytes", audit.ErrPageTooLarge, limit)
	case err != nil:
		return nil, fmt.Errorf("answer broke off after %d bytes: %w", n, err)
	}
	return buffer.Bytes(), nil
}

// message returns the reason of a refusal: Kong's own, or the title of an HTML page
// of whatever stands before Kong. all is the whole answer.
func message(resp *http.Response) (reason, all string) {
	// What broke off is still a refusal.
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if bytes.HasPrefix(raw, []byte(gzipMagic)) {
		if z, err := gzip.NewReader(bytes.NewReader(raw)); err == nil {
			raw, _ = io.ReadAll(io.LimitReader(z, maxRefusal))
		}
	}
	all = strings.TrimPrefix(string(raw), byteOrderMark)
	err := members(all, func(name, value string, _ bool) {
		if name == "message" {
			reason = value
		}
	})
	if err != nil {
		reason = ""
	}
	if reason == "" {
		if _, rest, ok := strings.Cut(all, "<title>"); ok {
			reason, _, _ = strings.Cut(rest, "</title>")
		} else if t := resp.Header.Get("Content-Type"); t == "" || strings.HasPrefix(t, "text/plain") {
			reason = all
		}
	}
	return reason, all
}

// shorten makes a text fit for one line of a log or a terminal.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s[:min(len(s), echo.MaxText)])
	s = strings.Join(strings.Fields(s), " ")
	for i := range s {
		if i > maxMessage {
			return s[:i] + "…"
		}
	}
	return s
}

// rootVersion reads the version out of an answer of GET /.
func rootVersion(resp *http.Response) string {
	if resp.StatusCode == http.StatusOK {
		if raw, err := readBody(resp, new(bytes.Buffer), maxRoot); err == nil {
			version := ""
			err := members(string(raw), func(name, value string, _ bool) {
				if name == "version" {
					version = value
				}
			})
			if err == nil && version != "" {
				return version
			}
		}
	}
	return serverVersion(resp.Header.Get("Server"))
}

// serverVersion takes the version out of a header such as "kong/3.9.1".
func serverVersion(server string) string {
	for field := range strings.FieldsSeq(server) {
		if name, v, ok := strings.Cut(field, "/"); ok && strings.EqualFold(name, "kong") && v != "" {
			return v
		}
	}
	return ""
}
