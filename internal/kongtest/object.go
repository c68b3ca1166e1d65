package kongtest

import (
	"iter"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// AddObjects puts rows into /audit/objects. The caller decides how many a request has, in
// which order and how late. Writes to entities, which the server answers itself, add their own
// rows, with those of entities that are deleted in cascade.
func (s *Server) AddObjects(rows ...auditlog.Object) {
	o := s.options.Load()
	now := o.Now().Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		if o.Order != Filtered {
			r.RequestTimestamp = 1
		}
		s.objects.Add(r.Encode(now, recordTTL))
	}
	s.change()
}

// EverObjectIDs yields the ids of all rows that /audit/objects has ever had.
func (s *Server) EverObjectIDs() iter.Seq[string] { return s.ids(s.objects.Ever) }

// World returns the entities, with the true state before and after each change. That of a
// recorder is empty, as Kong has the entities.
func (s *Server) World() *entities.World { return &s.world }

// serveEntity answers requests for entities as the Admin API does, and has the rows of what
// changed written.
func (s *Server) serveEntity(e *exchange) {
	text, ok := e.readPayload()
	if !ok {
		return
	}
	if e.r.Method == http.MethodOptions {
		e.send(http.StatusNoContent, nil)
		return
	}
	edit := entities.Edit{RequestID: e.RequestID, Method: e.r.Method, Path: e.r.URL.Path, Time: e.Time}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &edit.Body, lax, anyBytes); err != nil {
			e.message(http.StatusBadRequest, "Cannot parse JSON body")
			return
		}
	}
	a := s.world.Apply(edit)
	e.workspace = a.Workspace
	if a.Body == nil {
		e.send(a.Status, nil)
	} else {
		e.json(a.Status, a.Body)
	}
	s.recordObjects(e, a.Changes)
}

// recordObjects has the rows of changes written, each with its own delay, so that they do not
// come together.
func (s *Server) recordObjects(e *exchange, changes []entities.Change) {
	o := e.options
	if o.AuditOff {
		return
	}
	for _, c := range changes {
		state := c.After
		if state == nil {
			state = c.Before
		}
		entity, removed := excludeKeys(entities.Text(state), o.PayloadExclude)
		row := auditlog.Object{
			ID: c.Row, RequestID: c.RequestID, EntityKey: c.Key, DAOName: c.DAO, Operation: c.Operation, Entity: *entity, RemovedFromEntity: removed,
		}
		if e.user != nil {
			row.RBACUserID = new(e.user.ID)
		}
		node := e.node
		s.later(o, true, func() {
			row.RequestTimestamp = node.now(o).Unix()
			s.AddObjects(row)
		})
	}
}
