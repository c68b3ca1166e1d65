package kongtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

const (
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
func parseQuery(o *Options, v url.Values) (auditlog.Selection, error) {
	q := auditlog.Selection{ByID: o.Order == Unordered, From: math.MinInt64, Until: math.MaxInt64, Size: defaultSize}
	if v.Has("size") {
		n, err := strconv.Atoi(v.Get("size"))
		if err != nil || n < 1 || n > maxSize {
			return q, &queryError{6, "invalid size", "size must be an integer between 1 and 1000"}
		}
		q.Size = n
	}
	if v.Has("offset") {
		p, err := auditlog.ParseOffset(v.Get("offset"))
		if err != nil || o.OffsetPosition != (p.Skip > 0) {
			return q, &queryError{7, "invalid offset", fmt.Sprintf("%q is not a valid offset: bad encoding", v.Get("offset"))}
		}
		q.After = p
	}
	if o.Order != Filtered {
		return q, nil
	}
	for name, bound := range map[string]*int64{"after": &q.From, "before": &q.Until} {
		if !v.Has(name) {
			continue
		}
		n, err := strconv.ParseInt(v.Get(name), 10, 64)
		if err != nil {
			return q, &queryError{2, "schema violation", name + " must be a number of seconds"}
		}
		*bound = n
	}
	if o.AfterExclusive && v.Has("after") && q.From < math.MaxInt64 {
		q.From++
	}
	if v.Has("sort_by") && v.Get("sort_by") != "request_timestamp" {
		return q, &queryError{2, "schema violation", "sort_by must be request_timestamp"}
	}
	switch {
	case !v.Has("sort_desc"), v.Get("sort_desc") == "true":
	case v.Get("sort_desc") == "false":
		q.Oldest = v.Has("sort_by") // without sort_by there is nothing to turn round
	default:
		return q, &queryError{2, "schema violation", "sort_desc must be true or false"}
	}
	return q, nil
}

// servePage answers with rows of the requests or of the objects.
func (s *Server) servePage(e *exchange, from *auditlog.Table) {
	o := e.options
	if o.AuditOff {
		e.message(http.StatusNotFound, "Not found")
		return
	}
	q, err := parseQuery(o, e.Query)
	if bad, ok := errors.AsType[*queryError](err); ok {
		e.json(http.StatusBadRequest, map[string]any{"code": bad.code, "name": bad.name, "message": bad.text})
		return
	}
	// The row that this read leaves has a later time than what is shown.
	q.Now = o.Now().Unix()
	s.mu.Lock()
	rows, next := from.Page(q)
	if e.Fault.Reorder {
		s.random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	s.mu.Unlock()
	e.Rows = len(rows)
	end := []byte(`],"next":null}`)
	if next != nil {
		if o.OffsetPosition {
			next = &auditlog.Place{Skip: next.Skip}
		} else {
			next.Skip = 0
		}
		end = e.end(next.Offset())
	}
	e.writePage(rows, q.Now, end)
}

// end returns the end of a page that another one follows.
func (e *exchange) end(offset string) []byte {
	query := url.Values{}
	if !e.options.BareNext {
		query = maps.Clone(e.Query)
	}
	query.Set("offset", offset)
	return fmt.Appendf(nil, `],"next":%q,"offset":%q}`, e.r.URL.Path+"?"+query.Encode(), offset) // both are ASCII
}

// writePage sends a page: with its length known, as Kong does, and without ever holding it
// as a whole unless compressed, for a payload can have 10 MiB.
func (e *exchange) writePage(rows []auditlog.Record, now int64, end []byte) {
	const begin = `{"data":[`
	withTime := e.r.URL.Path == auditPath || e.options.Order == Filtered
	length := len(begin) + len(end) + max(0, len(rows)-1) // commas
	var head []byte
	for i := range rows {
		head = rows[i].AppendHead(head[:0], now, withTime)
		length += len(head) + len(rows[i].Tail())
	}

	write := func(to io.Writer) error {
		w, _ := writers.Get().(*bufio.Writer)
		defer writers.Put(w)
		w.Reset(to)
		defer w.Reset(io.Discard)
		// The writer keeps its first error, and Flush returns it.
		_, _ = w.WriteString(begin)
		for i := range rows {
			if i > 0 {
				_ = w.WriteByte(',')
			}
			head = rows[i].AppendHead(head[:0], now, withTime)
			_, _ = w.Write(head)
			_, _ = w.WriteString(rows[i].Tail())
		}
		_, _ = w.Write(end)
		return w.Flush()
	}
	h := e.w.Header()
	if e.options.Gzip {
		h["Content-Encoding"] = []string{"gzip"}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_ = write(z) // into memory
		_ = z.Close()
		length, write = packed.Len(), func(to io.Writer) error { _, err := packed.WriteTo(to); return err }
	}
	h["Content-Type"] = []string{"application/json; charset=utf-8"}
	h["Content-Length"] = []string{strconv.Itoa(length)}
	e.w.WriteHeader(http.StatusOK)
	// An error means that the client has gone, or that the body was to be cut.
	if errors.Is(write(e.body(length)), errCut) {
		e.abort()
	}
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// Request is what the server has seen of a request.
type Request struct {
	Time      time.Time // by the control plane's clock
	RequestID string    // as in X-Kong-Admin-Request-ID
	Method    string
	Path      string     // without the query
	Page      bool       // a page of /audit/requests, which alone can have faults
	Query     url.Values // of a page, as it came
	Fault     Fault      // of a page: what was done to it
	Status    int        // 0 if nothing was answered
	Rows      int        // of a page
	Bytes     int64      // of the answer's body
}

// Stats are totals since the start.
type Stats struct {
	Requests int64 // all of them
	Pages    int64 // requests for a page of /audit/requests
	Faulty   int64 // pages with a fault
}

// maxLog is how many requests are remembered, at least.
const maxLog = 10_000

func (s *Server) count(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests++
	if r.Page {
		s.stats.Pages++
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
	return slices.Clone(s.log)
}

// Pages returns those of Requests that asked for a page of /audit/requests.
func (s *Server) Pages() []Request {
	return slices.DeleteFunc(s.Requests(), func(r Request) bool { return !r.Page })
}
