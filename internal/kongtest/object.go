package kongtest

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
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
	// RequestTimestamp is in Unix seconds, and 1 in rows from before an upgrade to 3.7.
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

// entity is what the server keeps of an entity, so that a delete can show it.
type entity map[string]any

func (e entity) id() string {
	id, _ := e["id"].(string)
	return id
}

// json is the entity as the log holds it.
func (e entity) json() string {
	b, err := json.Marshal(map[string]any(e), json.Deterministic(true), anyBytes)
	if err != nil {
		panic(err) // it has been decoded
	}
	return string(b)
}

// changeEntity applies a request to the entities, and returns what the server answers and
// the rows that it leaves. The path has one step or two: /routes or /routes/<id>.
func (s *Server) changeEntity(e *exchange, body entity) (entity, []Object) {
	steps := strings.Split(strings.Trim(e.r.URL.Path, "/"), "/")
	dao, key := steps[len(steps)-1], body.id()
	if e.r.Method != http.MethodPost && len(steps) > 1 {
		dao, key = steps[len(steps)-2], steps[len(steps)-1]
	}
	row := func(operation, dao string, changed entity) Object {
		o := Object{
			ID: newUUID(), RequestID: e.RequestID, EntityKey: changed.id(), DAOName: dao, Operation: operation,
			Entity: changed.json(), RequestTimestamp: e.Time.Unix(),
		}
		if e.user != nil {
			o.RBACUserID = new(e.user.ID)
		}
		return o
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := dao + "/" + key
	old, had := s.entities[at]
	if e.r.Method == http.MethodDelete {
		if !had {
			return nil, nil
		}
		delete(s.entities, at)
		rows := []Object{row("delete", dao, old)}
		for _, other := range slices.Sorted(maps.Keys(s.entities)) {
			if refers(s.entities[other], key) { // a cascade
				kind, _, _ := strings.Cut(other, "/")
				rows = append(rows, row("delete", kind, s.entities[other]))
				delete(s.entities, other)
			}
		}
		return nil, rows
	}
	changed := entity{}
	if e.r.Method == http.MethodPatch {
		maps.Copy(changed, old)
	}
	maps.Copy(changed, body)
	operation := "update"
	if !had {
		operation = "create"
	}
	if changed["created_at"] = e.Time.Unix(); had {
		changed["created_at"] = old["created_at"]
	}
	if changed.id() == "" {
		if changed["id"] = key; key == "" {
			changed["id"] = newUUID()
		}
	}
	if s.entities == nil {
		s.entities = map[string]entity{}
	}
	s.entities[dao+"/"+changed.id()] = changed
	return changed, []Object{row(operation, dao, changed)}
}

// refers reports whether an entity belongs to another one, as a route does to its service.
func refers(e entity, id string) bool {
	for _, v := range e {
		if m, ok := v.(map[string]any); ok && m["id"] == id {
			return true
		}
	}
	return false
}

func newUUID() string {
	id := newRequestID() // any UUID will do
	var b bytes.Buffer
	for i, n := range []int{4, 2, 2, 2, 6} {
		if i > 0 {
			b.WriteByte('-')
		}
		const digits = "0123456789abcdef"
		for range 2 * n {
			b.WriteByte(digits[id[b.Len()%len(id)]%16])
		}
	}
	return b.String()
}
