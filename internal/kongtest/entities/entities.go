// Package entities holds the entities of an emulated Kong, and what edits through its
// Admin API do to them: cascades, foreign keys and unique names included. It keeps the
// true state before and after each change, so that a test can judge what others make of
// the rows of /audit/objects. A generator makes random edits.
package entities

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Edit is a request to the Admin API that may change entities.
type Edit struct {
	RequestID string
	Method    string
	Path      string         // without query: /orders-team/services/orders
	Body      map[string]any // must not be changed afterwards
	Time      time.Time
}

// Answer is what Kong answers to an edit.
type Answer struct {
	Status    int
	Body      any    // nil for none
	Workspace string // UUID of the workspace that the path names
	Changes   []Change
}

// Change is what an edit did to one entity. An edit has none, one, or several: deletes
// in cascade, and what Kong makes along with an entity.
type Change struct {
	Seq       int    // order in which the changes took effect, from 1
	RequestID string // of the edit
	At        time.Time
	Workspace string // UUID
	DAO       string // keyauth_credentials
	Key       string // primary key
	Name      string // what it is called after the change, or before it was deleted; empty for none
	Operation string // create, update or delete

	Before, After jsontext.Value // JSON; nil where there was none
	// Row is the id of the row that the change left in /audit/objects, whether or not it
	// was lost.
	Row string
}

// DefaultWorkspace is the id of the workspace that is always there.
const DefaultWorkspace = "0da4afe7-44ad-4e81-a953-5d2923ce68ae"

// World holds the entities of one Kong. Its zero value has none but the default
// workspace. It is safe for concurrent use.
type World struct {
	mu       sync.Mutex
	entities []*entity // in the order in which they were made
	byID     map[string]*entity
	changes  []Change
}

type entity struct {
	kind      kind
	workspace string         // its id
	fields    map[string]any // never changed, only replaced
}

func (e *entity) id() string {
	id, _ := e.fields["id"].(string)
	return id
}

func (e *entity) name() string {
	name, _ := e.fields[e.kind.name].(string)
	return name
}

func (e *entity) is(k kind, workspace string) bool {
	return e.kind.path == k.path && (k.global || e.workspace == workspace)
}

// Changes returns all changes so far, in the order in which they took effect.
func (w *World) Changes() []Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.changes)
}

// Apply does what Kong does at an edit, or answers a read.
func (w *World) Apply(e Edit) Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.target(e.Path)
	if !ok {
		return failed(http.StatusNotFound, "Not found")
	}
	first := len(w.changes)
	x := &editing{World: w, Edit: e, target: t}
	var a Answer
	switch e.Method {
	case http.MethodGet, http.MethodHead:
		a = x.read()
	case http.MethodPost:
		a = x.create(t.key, http.StatusCreated)
	case http.MethodPut:
		a = x.upsert()
	case http.MethodPatch:
		a = x.update()
	case http.MethodDelete:
		a = x.delete()
	default:
		a = failed(http.StatusMethodNotAllowed, "Method not allowed")
	}
	a.Workspace, a.Changes = t.workspace, slices.Clone(w.changes[first:])
	return a
}

// target is what a path names.
type target struct {
	workspace string
	kind      kind
	key       string  // id or name; empty for a list
	parent    *entity // of a nested path
	field     string  // that refers to the parent
}

// target reads [/workspace]/kind[/key] and [/workspace]/parent/key/kind[/key].
func (w *World) target(path string) (t target, ok bool) {
	steps := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	t.workspace = DefaultWorkspace
	if len(steps) == 0 {
		return t, false
	}
	if steps[0] == "default" {
		steps = steps[1:]
	} else if ws := w.workspaceNamed(steps[0]); ws != "" {
		t.workspace, steps = ws, steps[1:]
	}
	if len(steps) > 1 && steps[0] == "rbac" {
		steps = slices.Concat([]string{"rbac/" + steps[1]}, steps[2:])
	}
	if len(steps) == 0 {
		return t, false
	}
	t.kind = kindOf(steps[0])
	if len(steps) > 1 {
		t.key = steps[1]
	}
	if len(steps) < 3 {
		return t, true
	}
	parent := t.kind
	t.parent = w.find(parent, t.workspace, t.key)
	if t.parent == nil {
		return t, false
	}
	t.kind, t.key = kindOf(steps[2]), ""
	if len(steps) > 3 {
		t.key = steps[3]
	}
	i := slices.IndexFunc(t.kind.refs, func(r ref) bool { return r.dao == parent.dao })
	if i < 0 {
		return t, false
	}
	t.field = t.kind.refs[i].field
	return t, true
}

// kindOf returns the kind at a path. What the table does not know has neither a name
// nor references.
func kindOf(path string) kind {
	if k, ok := kindAt(path); ok {
		return k
	}
	return kind{path: path, dao: path, global: true}
}

func (w *World) workspaceNamed(name string) string {
	for _, e := range w.entities {
		if e.kind.path == "workspaces" && e.name() == name {
			return e.id()
		}
	}
	return ""
}

// find returns an entity by id or name, or nil.
func (w *World) find(k kind, workspace, key string) *entity {
	if e := w.byID[key]; e != nil && e.is(k, workspace) {
		return e
	}
	if k.name == "" || key == "" {
		return nil
	}
	for _, e := range w.entities {
		if e.is(k, workspace) && e.name() == key {
			return e
		}
	}
	return nil
}

func failed(status int, message string) Answer {
	return Answer{Status: status, Body: map[string]any{"message": message}}
}

func refused(status, code int, name, message string) Answer {
	return Answer{Status: status, Body: map[string]any{"code": float64(code), "name": name, "message": message}}
}

// text is a state of an entity, as a test compares it, or nil for none.
func text(fields map[string]any) jsontext.Value {
	if fields == nil {
		return nil
	}
	b, err := json.Marshal(fields, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // it was made of JSON
	}
	return b
}
