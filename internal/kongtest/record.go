package kongtest

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// maxPayload is what Kong records of a request's body, in bytes. A longer one is
// not recorded at all.
const maxPayload = 10 << 20

// lateRow is a row that is still to be written.
type lateRow struct {
	timer *time.Timer // nil while rows are held back
	write func()
}

// record writes the row of a request that has been answered, or sees to it that
// it is written in time.
func (s *Server) record(e *exchange) {
	o := e.options
	switch {
	case o.AuditOff, e.silent, e.Status == 0, isAudit(e.r.URL.Path) && o.SkipReads:
		return
	}
	row := auditlog.Row{
		RequestID:          e.RequestID,
		Method:             e.r.Method,
		Path:               e.r.URL.RequestURI(),
		Status:             e.Status,
		ClientIP:           e.r.RemoteAddr,
		Workspace:          new(cmp.Or(e.workspace, entities.DefaultWorkspace)),
		Payload:            e.payload,
		RemovedFromPayload: e.removed,
	}
	if o.NoPayloads {
		row.Payload, row.RemovedFromPayload = nil, nil
	}
	if host, _, err := net.SplitHostPort(e.r.RemoteAddr); err == nil {
		row.ClientIP = host
	}
	if e.user != nil {
		row.RBACUserID, row.RBACUserName = new(e.user.ID), new(e.user.Name)
	}
	node := e.node
	write := func() {
		// The timestamp is that of the insert, by the clock of who inserts it.
		row.RequestTimestamp = node.now(o).Unix()
		s.Add(row)
	}
	s.later(o, delays{o.RowDelay, o.RowDelayMax, o.LoseRows}, write)
}

// delays say when rows of a table are written.
type delays struct {
	least, most time.Duration
	lose        float64 // share of the rows that are never written
}

func (o *Options) objectDelays() delays {
	if o.ObjectDelay == 0 && o.ObjectDelayMax == 0 {
		return delays{o.RowDelay, o.RowDelayMax, o.LoseObjects}
	}
	return delays{o.ObjectDelay, o.ObjectDelayMax, o.LoseObjects}
}

// later calls write as late as the options say, if at all.
func (s *Server) later(o *Options, by delays, write func()) {
	s.mu.Lock()
	if by.lose > 0 && s.random.Float64() < by.lose {
		s.mu.Unlock()
		return
	}
	d := by.least
	if span := by.most - d; span > 0 {
		d += time.Duration(s.random.Int64N(int64(span)))
	}
	if o.Stragglers > 0 && s.random.Float64() < o.Stragglers {
		d += o.StragglerDelay
	}
	if d <= 0 && !o.HoldRows {
		s.mu.Unlock()
		write()
		return
	}
	defer s.mu.Unlock()
	l := &lateRow{write: write}
	s.late[l] = struct{}{}
	if !o.HoldRows {
		s.writes.Add(1)
		l.timer = time.AfterFunc(d, func() {
			defer s.writes.Done()
			s.mu.Lock()
			_, mine := s.late[l]
			delete(s.late, l)
			s.mu.Unlock()
			if mine {
				write()
			}
		})
	}
}

// ReleaseRows writes the rows that are late or held back, and returns how many
// there were.
func (s *Server) ReleaseRows() int {
	s.mu.Lock()
	late := s.late
	s.late = map[*lateRow]struct{}{}
	s.mu.Unlock()
	for l := range late {
		if l.timer != nil && l.timer.Stop() {
			s.writes.Done()
		}
		l.write()
	}
	return len(late)
}

// LateRows returns how many rows are still to be written.
func (s *Server) LateRows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.late)
}

// capture passes a request's body on and keeps what the audit log may hold of it.
type capture struct {
	io.ReadCloser
	mu       sync.Mutex // the proxy may still be reading when it has an answer
	buf      bytes.Buffer
	ended    bool
	overflow bool
}

// capturePayload puts a capture in the place of a body that Kong would record,
// and returns nil for any other.
func capturePayload(r *http.Request) *capture {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	c := &capture{ReadCloser: r.Body}
	r.Body = c
	return c
}

func (c *capture) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf.Len()+n > maxPayload {
		c.overflow = true
		c.buf = bytes.Buffer{}
	}
	if !c.overflow {
		c.buf.Write(p[:n])
	}
	c.ended = c.ended || err == io.EOF
	return n, err
}

// payload returns what the audit log holds of the body; nil for nothing.
func (c *capture) payload(exclude []string) (payload, removed *string) {
	if c == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overflow || !c.ended || c.buf.Len() == 0 {
		return nil, nil
	}
	text, names := excludeKeys(c.buf.Bytes(), exclude)
	if len(names) > 0 {
		removed = new(strings.Join(names, ","))
	}
	return new(string(text)), removed
}

// excludeKeys takes keys out of a JSON text, at any depth, and returns those that it
// found. A text without them, or one that is not JSON, stays as it is.
func excludeKeys(text []byte, exclude []string) (rest []byte, removed []string) {
	var b bytes.Buffer
	d, enc := jsontext.NewDecoder(bytes.NewReader(text), lax), jsontext.NewEncoder(&b, lax, jsontext.PreserveRawStrings(true))
	found := map[string]bool{}
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return text, nil
		}
		within, n := d.StackIndex(d.StackDepth())
		if isName := within == jsontext.KindBeginObject && n%2 == 1 && token.Kind() == jsontext.KindString; isName && slices.Contains(exclude, token.String()) {
			found[token.String()] = true
			if d.SkipValue() != nil {
				return text, nil
			}
			continue
		}
		if enc.WriteToken(token) != nil {
			return text, nil
		}
	}
	if len(found) == 0 {
		return text, nil
	}
	for _, name := range exclude {
		if found[name] {
			removed = append(removed, name)
		}
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), removed
}

// Kong's own decoder lets both pass: a name that is there twice, and bytes that are not UTF-8.
var (
	lax      = jsontext.AllowDuplicateNames(true)
	anyBytes = jsontext.AllowInvalidUTF8(true)
)
