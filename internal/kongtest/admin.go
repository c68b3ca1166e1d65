package kongtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// serveAdmin answers every other request as an Admin API with nothing in it might.
func (s *Server) serveAdmin(e *exchange) {
	path := e.r.URL.Path
	switch {
	case path == objectsPath && e.r.Method == http.MethodGet && !e.options.AuditOff:
		e.Query = e.r.URL.Query()
		s.servePage(e, &s.objects)
	case isAudit(path) && (e.options.AuditOff || path != auditPath && path != objectsPath):
		e.message(http.StatusNotFound, "Not found")
	case isAudit(path):
		e.message(http.StatusMethodNotAllowed, "Method not allowed")
	case path == "/" && e.options.RootFails:
		e.message(http.StatusInternalServerError, "An unexpected error occurred")
	case path == "/" && e.r.Method == http.MethodGet:
		e.json(http.StatusOK, e.root())
	case path == "/status" && e.r.Method == http.MethodGet:
		e.json(http.StatusOK, map[string]any{
			"database": map[string]any{"reachable": true},
			"server":   map[string]any{"connections_active": 1, "total_requests": s.Stats().Requests},
		})
	default:
		s.serveEntity(e)
	}
}

func (e *exchange) root() map[string]any {
	root := map[string]any{
		"version":  e.options.Version,
		"hostname": e.node.Hostname,
		"node_id":  e.node.ID,
		"tagline":  "Welcome to kong",
		"configuration": map[string]any{
			"audit_log":            !e.options.AuditOff,
			"audit_log_record_ttl": int64(e.options.RecordTTL.Seconds()),
			"role":                 "traditional",
			"database":             "postgres",
		},
	}
	if v, err := parseVersion(e.options.Version); err == nil && !v.before(3, 6, 0, 0) {
		root["edition"] = "enterprise"
	}
	return root
}

// NewRecorder returns a server that stands before the Admin API of an open
// source Kong and gives it an audit log: every request but those for /audit/ is
// passed on to the upstream URL, and recorded as Kong Enterprise would.
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
	s.proxy = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(u)
			p.Out.Header.Del("Kong-Admin-Token") // open source Kong has no use for it
		},
		FlushInterval: -1, // pass everything on at once
		ModifyResponse: func(r *http.Response) error {
			r.Request.Context().Value(exchangeKey{}).(*exchange).setKong(r.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				panic(http.ErrAbortHandler) // the client has gone: there is nothing to record either
			}
			e := r.Context().Value(exchangeKey{}).(*exchange)
			e.setKong(w.Header())
			e.message(http.StatusBadGateway, "the Admin API cannot be reached")
		},
		ErrorLog: log.New(io.Discard, "", 0), // the client sees the answer cut
	}
	return s, nil
}

type exchangeKey struct{}

func (s *Server) forward(e *exchange) {
	c := capturePayload(e.r)
	defer func() { e.payload, e.removed = c.payload(e.options.PayloadExclude) }()
	// The proxy brings its headers with the answer. An interim one, such as
	// 100 Continue, would clear those that are set here.
	clear(e.w.Header())
	s.proxy.ServeHTTP(e.w, e.r.WithContext(context.WithValue(e.r.Context(), exchangeKey{}, e)))
}
