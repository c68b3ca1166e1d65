package kongtest

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	byteOrderMark = "\uFEFF"

	auditPath   = "/audit/requests"
	objectsPath = "/audit/objects"
	maxSize     = 1000
	defaultSize = 100
)

func isAudit(path string) bool { return path == "/audit" || strings.HasPrefix(path, "/audit/") }

// queryError is a query that Kong answers with a 400.
type queryError struct {
	code       int
	name, text string
}

func (e *queryError) Error() string { return e.name + ": " + e.text }

// parseQuery reads the query of a page as the release would.
func parseQuery(o *Options, v url.Values) (selection, error) {
	q := selection{order: o.Order, from: math.MinInt64, to: math.MaxInt64, size: defaultSize}
	if v.Has("size") {
		n, err := strconv.Atoi(v.Get("size"))
		if err != nil || n < 1 || n > maxSize {
			return q, &queryError{6, "invalid size", "size must be an integer between 1 and 1000"}
		}
		q.size = n
	}
	if v.Has("offset") {
		if err := q.parseOffset(v.Get("offset"), o.OffsetPosition); err != nil {
			return q, &queryError{7, "invalid offset", fmt.Sprintf("%q is not a valid offset: %v", v.Get("offset"), err)}
		}
	}
	if o.Order != Filtered {
		for _, name := range []string{"after", "before", "sort_by", "sort_desc"} {
			if o.Strict && v.Has(name) {
				return q, &queryError{7, "invalid options", "invalid option (" + name + ": unknown field)"}
			}
		}
		return q, nil
	}
	return q, q.parseFilters(o, v)
}

// parseFilters reads the bounds and the order of a query.
func (q *selection) parseFilters(o *Options, v url.Values) error {
	if v.Has("after") {
		n, err := strconv.ParseInt(v.Get("after"), 10, 64)
		if err != nil {
			return &queryError{2, "schema violation", "after must be a number of seconds"}
		}
		q.from = n
		if o.AfterExclusive && n < math.MaxInt64 {
			q.from++
		}
	}
	if v.Has("before") {
		n, err := strconv.ParseInt(v.Get("before"), 10, 64)
		if err != nil {
			return &queryError{2, "schema violation", "before must be a number of seconds"}
		}
		q.to = n
		if !o.BeforeInclusive && n > math.MinInt64 {
			q.to--
		}
	}
	if v.Has("sort_by") && v.Get("sort_by") != "request_timestamp" {
		return &queryError{2, "schema violation", "sort_by must be request_timestamp"}
	}
	switch {
	case !v.Has("sort_desc"), v.Get("sort_desc") == "true":
	case v.Get("sort_desc") == "false":
		q.oldest = v.Has("sort_by") // without sort_by there is nothing to turn round
	default:
		return &queryError{2, "schema violation", "sort_desc must be true or false"}
	}
	return nil
}

// An offset is base64 of a JSON array: the key of the last row, or a position.
// It is not made safe for URLs, so that a client has to escape it.
func (k *key) offset() string {
	b := append([]byte{'['}, strconv.FormatInt(k.timestamp, 10)...)
	b = appendString(append(b, ','), k.id)
	b = strconv.AppendUint(append(b, ','), uint64(k.number), 10)
	return base64.StdEncoding.EncodeToString(append(b, ']'))
}

func positionOffset(n int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "[%d]", n))
}

var errOffset = errors.New("bad encoding")

func (q *selection) parseOffset(s string, position bool) error {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return errOffset
	}
	var fields []jsontext.Value
	if json.Unmarshal(b, &fields) != nil {
		return errOffset
	}
	if position {
		if len(fields) != 1 || json.Unmarshal(fields[0], &q.skip) != nil || q.skip < 0 {
			return errOffset
		}
		return nil
	}
	var (
		k  key
		id *string
	)
	if len(fields) != 3 || json.Unmarshal(fields[0], &k.timestamp) != nil || json.Unmarshal(fields[1], &id) != nil ||
		id == nil || json.Unmarshal(fields[2], &k.number) != nil {
		return errOffset
	}
	k.id = *id
	q.after = &k
	return nil
}

// nextLink builds next as the release would.
func nextLink(o *Options, path string, v url.Values, offset string) string {
	n := url.Values{"offset": {offset}}
	if o.Next != NextBare && v.Has("size") {
		n.Set("size", v.Get("size"))
	}
	if o.Next == NextFull {
		for name := range v {
			if name != "size" && name != "offset" {
				n[name] = v[name]
			}
		}
	}
	return path + "?" + n.Encode()
}

// servePage answers with rows of the requests or of the objects.
func (s *Server) servePage(e *exchange, from *store) {
	o := e.options
	if o.AuditOff {
		e.message(http.StatusNotFound, "Not found")
		return
	}
	q, err := parseQuery(o, e.Query)
	if err != nil {
		var bad *queryError
		errors.As(err, &bad)
		e.json(http.StatusBadRequest, map[string]any{"code": bad.code, "name": bad.name, "message": bad.text})
		return
	}
	// The row that this read leaves has a later time than what is shown.
	q.now = s.now(o, nil).Unix()
	s.mu.Lock()
	rows, last, more := from.page(q)
	if e.Fault.Reorder {
		s.random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	s.mu.Unlock()
	e.Rows = len(rows)

	offset := ""
	switch {
	case more && e.Fault.RepeatOffset && e.Query.Has("offset"):
		offset = e.Query.Get("offset")
	case more && o.OffsetPosition:
		offset = positionOffset(q.skip + int64(len(rows)))
	case more:
		offset = last.offset()
	}
	e.writePage(rows, q.now, offset)
}

// writePage sends a page: with its length known, as Kong does, and without ever holding it
// as a whole, for a payload can have 10 MiB.
func (e *exchange) writePage(rows []record, now int64, offset string) {
	const begin = `{"data":[`
	end := []byte(`],"next":null}`)
	if offset != "" {
		end = appendString([]byte(`],"next":`), nextLink(e.options, e.r.URL.Path, e.Query, offset))
		end = append(appendString(append(end, `,"offset":`...), offset), '}')
	}
	fields := shown{ttl: !e.options.NoTTL, time: e.r.URL.Path == auditPath || e.options.Order == Filtered}
	length := len(begin) + len(end) + max(0, len(rows)-1) // commas
	var head []byte
	for i := range rows {
		h, text := rows[i].parts(head[:0], now, fields)
		head, length = h, length+len(h)+len(text)+1
	}

	h := e.w.Header()
	h["Content-Type"] = []string{"application/json; charset=utf-8"}
	var body io.Writer = e.body(length)
	switch e.options.Encoding {
	case Plain:
		h["Content-Length"] = []string{strconv.Itoa(length)}
	case Gzip:
		h["Content-Encoding"] = []string{"gzip"}
		z := gzip.NewWriter(e.body(math.MaxInt))
		defer z.Close() //nolint:errcheck // the client has gone, or the body was to be cut
		body = z
	case BOM:
		body = e.body(length + len(byteOrderMark))
	}
	e.w.WriteHeader(http.StatusOK)
	w, _ := writers.Get().(*bufio.Writer)
	defer writers.Put(w)
	w.Reset(body)
	defer w.Reset(io.Discard)
	if e.options.Encoding == BOM {
		_, _ = w.WriteString(byteOrderMark)
	}
	// The writer keeps its first error, and Flush returns it.
	_, _ = w.WriteString(begin)
	for i := range rows {
		if i > 0 {
			_ = w.WriteByte(',')
		}
		h, text := rows[i].parts(head[:0], now, fields)
		_, _ = w.Write(h)
		_, _ = w.WriteString(text)
		_ = w.WriteByte('}')
	}
	_, _ = w.Write(end)
	// An error means that the client has gone, or that the body was to be cut.
	if errors.Is(w.Flush(), errCut) {
		e.abort()
	}
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// Request is what the server has seen of a request.
type Request struct {
	Time      time.Time // by the control plane's clock
	Node      string    // hostname of the control plane
	RequestID string    // as in X-Kong-Admin-Request-ID
	Method    string
	Path      string     // without the query
	Page      bool       // a page of the audit log
	Query     url.Values // of a page, as it came
	Fault     Fault      // of a page: what was done to it
	Status    int        // 0 if nothing was answered
	Rows      int        // of a page
	Bytes     int64      // of the answer's body
}

// Stats are totals since the start.
type Stats struct {
	Requests int64 // all of them
	Pages    int64 // requests for a page of the audit log
	Faulty   int64 // pages with a fault
	Rows     int64 // shown on pages
	Bytes    int64 // of pages
}

// maxLog is how many requests are remembered, at least.
const maxLog = 10_000

func (s *Server) count(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests++
	if r.Page {
		s.stats.Pages++
		s.stats.Rows += int64(r.Rows)
		s.stats.Bytes += r.Bytes
		if r.Fault != (Fault{}) {
			s.stats.Faulty++
		}
	}
	if len(s.log) >= 2*maxLog {
		s.log = append(s.log[:0], s.log[len(s.log)-maxLog:]...)
	}
	s.log = append(s.log, r)
	s.change()
}

// Stats returns the totals.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Requests returns the last 10,000 requests or more, in the order in which they
// were answered.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.log...)
}

// Pages returns those of Requests that asked for a page of the audit log.
func (s *Server) Pages() []Request {
	var pages []Request
	for _, r := range s.Requests() {
		if r.Page {
			pages = append(pages, r)
		}
	}
	return pages
}
