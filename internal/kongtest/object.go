package kongtest

import (
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// Object is a row of /audit/objects: an entity that a request changed. A nil pointer
// is shown as null.
type Object struct {
	ID        string // UUID of the row itself
	RequestID string // of the request, as in Row
	EntityKey string // primary key of the entity
	DAOName   string // routes
	Operation string // create, update or delete
	Entity    string // JSON text: the whole new entity, or the deleted one
	// RequestTimestamp is in Unix seconds. Releases that do not filter have none, and once
	// they are upgraded show 1.
	RequestTimestamp  int64
	RemovedFromEntity *string
	RBACUserID        *string
	Signature         *string
}

// AddObjects puts rows into /audit/objects. A request may have several, in any
// order, and they may come late: that is up to the caller. Writes to entities that
// the server answers by itself add theirs, with those that are deleted in cascade.
func (s *Server) AddObjects(rows ...Object) {
	o := s.options.Load()
	now := s.now(o, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	first := len(s.objects.rows)
	for _, r := range rows {
		if o.Order != Filtered {
			r.RequestTimestamp = 1
		}
		// Kept as a row whose key is the object's id, and whose fields are all extra.
		row := Row{RequestID: r.ID, RequestTimestamp: r.RequestTimestamp, Omit: []string{
			"request_id", "client_ip", "method", "path", "status", "workspace", "payload", "removed_from_payload", "signature", "rbac_user_id", "rbac_user_name", "request_source",
		}, Extra: map[string]jsontext.Value{
			"id": quoted(r.ID), "request_id": quoted(r.RequestID), "entity_key": quoted(r.EntityKey), "dao_name": quoted(r.DAOName),
			"operation": quoted(r.Operation), "entity": quoted(r.Entity), "removed_from_entity": optional(r.RemovedFromEntity),
			"rbac_user_id": optional(r.RBACUserID), "signature": optional(r.Signature),
		}}
		s.objects.add(&row, expiry(o, &row, now), nil)
	}
	s.objects.index(first)
	s.change()
}

func quoted(s string) jsontext.Value { return appendString(nil, s) }

func optional(s *string) jsontext.Value {
	if s == nil {
		return jsontext.Value("null")
	}
	return quoted(*s)
}

// EverObjectIDs yields the ids of all rows of /audit/objects that were ever there.
func (s *Server) EverObjectIDs() iter.Seq[string] { return s.ids(&s.objects, true) }

// World holds the entities, and the true state before and after each change. A recorder's
// is empty: the entities are Kong's.
func (s *Server) World() *entities.World { return &s.world }

// serveEntity answers as the Admin API does for entities, and sees to it that what
// changed gets its rows.
func (s *Server) serveEntity(e *exchange) {
	c := capturePayload(e.r)
	_, err := io.Copy(io.Discard, e.r.Body)
	if err != nil {
		e.message(http.StatusBadRequest, "cannot read the body")
		return
	}
	e.payload, e.removed = c.payload(e.options.PayloadExclude)
	if e.r.Method == http.MethodOptions {
		e.w.WriteHeader(http.StatusNoContent)
		return
	}
	edit := entities.Edit{RequestID: e.RequestID, Method: e.r.Method, Path: e.r.URL.Path, Time: e.Time}
	if c != nil && !c.overflow && c.buf.Len() > 0 {
		if err := json.Unmarshal(c.buf.Bytes(), &edit.Body, lax, anyBytes); err != nil {
			e.message(http.StatusBadRequest, "Cannot parse JSON body")
			return
		}
	}
	a := s.world.Apply(edit)
	e.workspace = a.Workspace
	if a.Body == nil {
		e.w.WriteHeader(a.Status)
	} else {
		e.json(a.Status, a.Body)
	}
	s.recordObjects(e, a.Changes)
}

// recordObjects sees to it that changes get their rows: each with its own delay, so
// that they come apart.
func (s *Server) recordObjects(e *exchange, changes []entities.Change) {
	o := e.options
	if o.AuditOff || o.ignores(e) {
		return
	}
	for _, c := range changes {
		if slices.Contains(o.IgnoreTables, c.DAO) {
			continue
		}
		state := c.After
		if state == nil {
			state = c.Before
		}
		row := Object{ID: c.Row, RequestID: c.RequestID, EntityKey: c.Key, DAOName: c.DAO, Operation: c.Operation}
		text, removed := excludeKeys([]byte(entities.Text(state)), o.PayloadExclude)
		if row.Entity = string(text); len(removed) > 0 {
			row.RemovedFromEntity = new(strings.Join(removed, ","))
		}
		if e.user != nil {
			row.RBACUserID = new(e.user.ID)
		}
		node := e.node
		s.later(o, o.objectDelays(), func() {
			row.RequestTimestamp = s.now(o, node).Add(-o.BackDate).Unix()
			s.AddObjects(row)
		})
	}
}
