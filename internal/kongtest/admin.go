package kongtest

import (
	"net"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
)

// serveAdmin answers every other request as the Admin API of an empty Kong might.
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
	case path == "/" && e.r.Method == http.MethodGet:
		e.json(http.StatusOK, e.root())
	default:
		s.serveEntity(e)
	}
}

func (e *exchange) root() map[string]any {
	return map[string]any{
		"version":  version,
		"edition":  "enterprise",
		"hostname": e.node.Hostname,
		"node_id":  "f5b5e1f0-4f3e-4a64-8c5f-0f2f9e1a7b01",
		"tagline":  "Welcome to kong",
		"configuration": map[string]any{
			"audit_log":            !e.options.AuditOff,
			"audit_log_record_ttl": recordTTL,
			"role":                 "traditional",
			"database":             "postgres",
		},
	}
}

// exchange is a request that is being served.
type exchange struct {
	Request
	options   *Options
	node      *Node
	w         http.ResponseWriter
	r         *http.Request
	user      *User
	upstream  *upstream // of a recorder: what a write changes
	workspace string    // UUID
	payload   *string   // what the audit log will hold; nil for none
	removed   *string
	silent    bool     // no row is written
	cut       net.Conn // to be closed once the request has been counted
}

const requestIDHeader = "X-Kong-Admin-Request-ID"

func (e *exchange) setKong(h http.Header) {
	h.Set("Date", e.Time.Add(e.options.DateOffset).UTC().Format(http.TimeFormat))
	h.Set("Server", "kong/"+version+"-enterprise-edition")
	h.Set(requestIDHeader, e.RequestID)
}

// authorize checks the token, and answers if it is refused.
func (e *exchange) authorize() bool {
	users := e.options.users
	if len(users) == 0 {
		return true
	}
	token := e.r.Header.Get("Kong-Admin-Token")
	if i := slices.IndexFunc(users, func(u User) bool { return u.Token == token && token != "" }); i >= 0 {
		e.user = &users[i]
	}
	switch {
	case e.user == nil:
		e.message(http.StatusUnauthorized, "Invalid RBAC credentials. Token or User credentials required")
		return false
	case e.user.Forbidden && isAudit(e.r.URL.Path):
		e.message(http.StatusForbidden, e.user.Name+", you do not have permissions to read this resource")
		return false
	}
	return true
}

func (e *exchange) message(status int, text string) {
	e.json(status, map[string]any{"message": text})
}

func (e *exchange) json(status int, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err) // v is made of this package's maps and strings
	}
	e.send(status, b)
}
