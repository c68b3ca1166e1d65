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
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// maxPayload is the size of the largest request body that Kong records, in bytes. Of a larger
// one it records nothing.
const maxPayload = 10 << 20

// record writes the row of a request that has been answered, now or after its delay.
func (s *Server) record(e *exchange) {
	o := e.options
	if o.AuditOff || e.silent || e.Status == 0 || isAudit(e.r.URL.Path) && o.SkipReads {
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
	s.later(o, false, func() {
		// The timestamp is that of the insert, by the clock of the node that inserts the row.
		row.RequestTimestamp = node.now(o).Unix()
		s.Add(row)
	})
}

// later calls write after the delay that the options set, unless the row is to be lost.
func (s *Server) later(o *Options, object bool, write func()) {
	lose, d := o.LoseRows, o.RowDelay
	if object {
		lose = o.LoseObjects
	}
	s.mu.Lock()
	if lose > 0 && s.random.Float64() < lose {
		s.mu.Unlock()
		return
	}
	if span := o.RowDelayMax - d; span > 0 {
		d += time.Duration(s.random.Int64N(int64(span)))
	}
	if o.Delay != nil {
		d = o.Delay(object, s.random)
	}
	if d <= 0 {
		s.mu.Unlock()
		write()
		return
	}
	defer s.mu.Unlock()
	s.writes.Add(1)
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		defer s.writes.Done()
		s.mu.Lock()
		_, due := s.late[timer]
		delete(s.late, timer)
		s.mu.Unlock()
		if due {
			write()
		}
	})
	s.late[timer] = write
}

// ReleaseRows writes the rows that are late, and returns how many there were.
func (s *Server) ReleaseRows() int {
	s.mu.Lock()
	late := s.late
	s.late = map[*time.Timer]func(){}
	s.mu.Unlock()
	for timer, write := range late {
		if timer.Stop() {
			s.writes.Done()
		}
		write()
	}
	return len(late)
}

// LateRows returns how many rows are still to be written.
func (s *Server) LateRows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.late)
}

// peek reads a body, and returns another one with the same content. The text is nil if it is larger
// than what Kong records.
func peek(body io.ReadCloser) (text []byte, again io.ReadCloser, err error) {
	text, err = io.ReadAll(io.LimitReader(body, maxPayload+1))
	again = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), body), body}
	if len(text) > maxPayload {
		text = nil
	}
	return text, again, err
}

// readPayload reads what the audit log may hold of the request's body, and returns it as it came. It
// answers, and returns false, if the body cannot be read.
func (e *exchange) readPayload() (text []byte, ok bool) {
	t, _, err := mime.ParseMediaType(e.r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" {
		return nil, true
	}
	if text, e.r.Body, err = peek(e.r.Body); err != nil {
		e.message(http.StatusBadRequest, "cannot read the body")
		return nil, false
	}
	if len(text) > 0 {
		e.payload, e.removed = excludeKeys(string(text), e.options.PayloadExclude)
	}
	return text, true
}

// excludeKeys takes keys out of a JSON text, at any depth, and returns what is left and the names of
// those that it found, or nil. A text without them, or one that is not JSON, stays as it is.
func excludeKeys(text string, exclude []string) (rest, removed *string) {
	var b bytes.Buffer
	d, enc := jsontext.NewDecoder(strings.NewReader(text), lax), jsontext.NewEncoder(&b, lax, jsontext.PreserveRawStrings(true))
	found := map[string]bool{}
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &text, nil
		}
		within, n := d.StackIndex(d.StackDepth())
		if within == jsontext.KindBeginObject && n%2 == 1 && token.Kind() == jsontext.KindString && slices.Contains(exclude, token.String()) {
			found[token.String()] = true
			err = d.SkipValue()
		} else {
			err = enc.WriteToken(token)
		}
		if err != nil {
			return &text, nil
		}
	}
	if len(found) == 0 {
		return &text, nil
	}
	names := slices.DeleteFunc(slices.Clone(exclude), func(name string) bool { return !found[name] })
	return new(strings.TrimSuffix(b.String(), "\n")), new(strings.Join(names, ","))
}

// Kong's own decoder lets both pass: a name that is there twice, and bytes that are not UTF-8.
var (
	lax      = jsontext.AllowDuplicateNames(true)
	anyBytes = jsontext.AllowInvalidUTF8(true)
)
