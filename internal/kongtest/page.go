package kongtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
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

// parseQuery reads the query of a page as the release would. refused is the body of Kong's 400
// for a query that it does not accept, else nil.
func parseQuery(o *Options, v url.Values) (q auditlog.Selection, refused map[string]any) {
	refuse := func(code int, name, text string) (auditlog.Selection, map[string]any) {
		return q, map[string]any{"code": code, "name": name, "message": text}
	}
	q = auditlog.Selection{ByID: o.Order == Unordered, From: math.MinInt64, Until: math.MaxInt64, Size: defaultSize}
	if v.Has("size") {
		n, err := strconv.Atoi(v.Get("size"))
		if err != nil || n < 1 || n > maxSize {
			return refuse(6, "invalid size", "size must be an integer between 1 and 1000")
		}
		q.Size = n
	}
	if v.Has("offset") {
		p, err := auditlog.ParseOffset(v.Get("offset"))
		if err != nil || o.OffsetPosition != (p.Skip > 0) {
			return refuse(7, "invalid offset", fmt.Sprintf("%q is not a valid offset: bad encoding", v.Get("offset")))
		}
		q.After = p
	}
	if o.Order == Filtered {
		if wrong := parseFilters(&q, v); wrong != "" {
			return refuse(2, "schema violation", wrong)
		}
		if o.AfterExclusive && v.Has("after") && q.From < math.MaxInt64 {
			q.From++
		}
	}
	return q, nil
}

// parseFilters reads the parameters that only the releases that filter know. It returns what is
// wrong with them, or "".
func parseFilters(q *auditlog.Selection, v url.Values) string {
	for name, bound := range map[string]*int64{"after": &q.From, "before": &q.Until} {
		if !v.Has(name) {
			continue
		}
		n, err := strconv.ParseInt(v.Get(name), 10, 64)
		if err != nil {
			return name + " must be a number of seconds"
		}
		*bound = n
	}
	if v.Has("sort_by") && v.Get("sort_by") != "request_timestamp" {
		return "sort_by must be request_timestamp"
	}
	if desc := v.Get("sort_desc"); v.Has("sort_desc") && desc != "true" && desc != "false" {
		return "sort_desc must be true or false"
	}
	q.Oldest = v.Has("sort_by") && v.Get("sort_desc") == "false" // without sort_by there is nothing to turn round
	return ""
}

// servePage answers with rows of the requests or of the objects.
func (s *Server) servePage(e *exchange, from *auditlog.Table) {
	o := e.options
	q, refused := parseQuery(o, e.Query)
	if refused != nil {
		e.json(http.StatusBadRequest, refused)
		return
	}
	// The row of this read gets a later time than those that it shows.
	q.Now = o.Now().Unix()
	s.mu.Lock()
	rows, next := from.Page(q)
	if e.Fault.Reorder {
		s.random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	s.mu.Unlock()
	e.Rows = len(rows)
	b, _ := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	e.writePage(b, rows, q.Now, next)
	if o.Gzip {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = b.WriteTo(z) // into memory
		_ = z.Close()
		b = &packed
		e.w.Header().Set("Content-Encoding", "gzip")
	}
	e.send(http.StatusOK, b.Bytes())
}

// buffers hold a page each while it is made and sent.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writePage writes a page with its envelope. next is where the next page begins, or nil for the
// last one.
func (e *exchange) writePage(b *bytes.Buffer, rows []auditlog.Record, now int64, next *auditlog.Place) {
	withTime := e.r.URL.Path == auditPath || e.options.Order == Filtered
	b.WriteString(`{"data":[`)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(rows[i].AppendTo(b.AvailableBuffer(), now, withTime))
	}
	if next == nil {
		b.WriteString(`],"next":null}`)
		return
	}
	if e.options.OffsetPosition {
		next = &auditlog.Place{Skip: next.Skip}
	} else {
		next.Skip = 0
	}
	query := url.Values{}
	if !e.options.BareNext {
		query = maps.Clone(e.Query)
	}
	query.Set("offset", next.Offset())
	fmt.Fprintf(b, `],"next":%q,"offset":%q}`, e.r.URL.Path+"?"+query.Encode(), next.Offset()) // both are ASCII
}

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
	Bytes     int64      // of the answer's body; 0 if a recorder passed it on
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
