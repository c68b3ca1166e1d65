package kongtest

import (
	"net/http"
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
