package kongtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// NewRecorder returns a server that stands before the Admin API of an open source Kong and
// gives it an audit log. It passes every request but those for /audit/ on to the upstream URL,
// and records it as Kong Enterprise would, with the entities that it changed: as Kong's answer
// shows them, or for a deletion as Kong has shown them just before.
func NewRecorder(upstream string, o Options) (*Server, error) {
	u, err := url.Parse(upstream)
	if err != nil {
		return nil, fmt.Errorf("parsing upstream: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("parsing upstream: want http://host:port")
	}
	s := New(o)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DisableCompression = true // what the client asked for is what it gets
	s.behind = u
	s.proxy = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(u)
			p.Out.Header.Del("Kong-Admin-Token") // open source Kong has no use for it
		},
		FlushInterval: -1, // pass everything on at once
		ModifyResponse: func(r *http.Response) error {
			e := r.Request.Context().Value(exchangeKey{}).(*exchange)
			e.setKong(r.Header)
			e.Status = r.StatusCode
			if e.upstream == nil {
				return nil
			}
			var err error
			e.upstream.after, r.Body, err = peek(r.Body)
			return err
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				panic(http.ErrAbortHandler) // the client has gone: nothing is recorded either
			}
			e := r.Context().Value(exchangeKey{}).(*exchange)
			e.setKong(w.Header())
			e.message(http.StatusBadGateway, "the Admin API cannot be reached")
		},
		ErrorLog: log.New(io.Discard, "", 0), // the client sees that the answer is cut
	}
	return s, nil
}

type exchangeKey struct{}

func (s *Server) forward(e *exchange) {
	if _, ok := e.readPayload(); !ok {
		return
	}
	if !e.options.AuditOff {
		e.upstream = s.watch(e)
	}
	// The proxy brings its headers with the answer. An interim one, such as
	// 100 Continue, would clear those that are set here.
	clear(e.w.Header())
	s.proxy.ServeHTTP(e.w, e.r.WithContext(context.WithValue(e.r.Context(), exchangeKey{}, e)))
	if e.upstream != nil {
		s.recordObjects(e, e.upstream.done(e))
	}
}

// upstream is what a recorder learns of the entities that a write changes.
type upstream struct {
	changes []entities.Change // with the states before: of the entity that the path names, and of those that are deleted with it
	after   []byte            // Kong's answer; nil if it is too long
}

// watch reads the entity that a write is for before the write is passed on. It returns nil for
// a request that changes no entity.
func (s *Server) watch(e *exchange) *upstream {
	method := e.r.Method
	kind, named, ok := entities.ParsePath(e.r.URL.Path)
	if !ok || !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, method) || named == (method == http.MethodPost) {
		return nil
	}
	c := entities.Change{DAO: kind.DAO}
	if named {
		c.Before = s.ask(e, e.r.URL.Path)
	}
	u := &upstream{changes: []entities.Change{c}}
	if id := idOf(c.Before); id != "" && method == http.MethodDelete {
		for _, child := range entities.Cascades(kind.Path) {
			var list struct {
				Data []jsontext.Value `json:"data"`
			}
			if json.Unmarshal(s.ask(e, "/"+kind.Path+"/"+id+"/"+child.Path), &list, lax, anyBytes) != nil {
				continue // this Kong has no such list
			}
			for _, entity := range list.Data {
				u.changes = append(u.changes, entities.Change{DAO: child.DAO, Before: entity})
			}
		}
	}
	return u
}

// ask reads from the Kong behind the recorder, without a row for it. It returns nil if that
// fails.
func (s *Server) ask(e *exchange, path string) jsontext.Value {
	ctx, cancel := context.WithTimeout(e.r.Context(), 5*time.Second)
	defer cancel()
	u := s.behind.JoinPath(path)
	u.RawQuery = "size=1000" // of a list
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil
	}
	res, err := s.proxy.Transport.RoundTrip(r)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxPayload))
	if err != nil || res.StatusCode != http.StatusOK {
		return nil
	}
	return b
}

// done returns what the request has changed, once it has been answered.
func (u *upstream) done(e *exchange) []entities.Change {
	first, operation := &u.changes[0], "update"
	state := u.after
	switch {
	case e.r.Method == http.MethodDelete:
		operation, state = "delete", first.Before
	case first.Before == nil:
		operation, first.After = "create", state
	default:
		first.After = state
	}
	if e.Status < 200 || e.Status > 299 || idOf(state) == "" {
		return nil
	}
	for i := range u.changes {
		c := &u.changes[i]
		c.RequestID, c.At, c.Row, c.Operation = e.RequestID, e.Time, entities.UUID(), operation
		c.Key = cmp.Or(idOf(c.After), idOf(c.Before))
	}
	return u.changes
}

func idOf(entity jsontext.Value) string {
	var of struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(entity, &of, lax, anyBytes) != nil {
		return ""
	}
	return of.ID
}
