package entities

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
)

// editing is one edit, while the world is locked.
type editing struct {
	*World
	Edit
	target
}

func (x *editing) read() Answer {
	if x.key != "" {
		e := x.found()
		if e == nil {
			return failed(http.StatusNotFound, "Not found")
		}
		return Answer{Status: http.StatusOK, Body: e.fields}
	}
	list := []any{}
	for _, e := range x.entities {
		if e.is(x.kind, x.workspace) && x.below(e) {
			list = append(list, e.fields)
		}
	}
	return Answer{Status: http.StatusOK, Body: map[string]any{"data": list, "next": nil}}
}

// found returns the entity that the path names, or nil.
func (x *editing) found() *entity {
	e := x.find(x.kind, x.workspace, x.key)
	if e == nil || !x.below(e) {
		return nil
	}
	return e
}

// below reports whether an entity belongs to the parent that the path names, if any.
func (x *editing) below(e *entity) bool {
	return x.parent == nil || referred(e.fields[x.field]) == x.parent.id()
}

// referred returns the id in a foreign key.
func referred(v any) string {
	m, _ := v.(map[string]any)
	id, _ := m["id"].(string)
	return id
}

// given returns the fields of a new entity as the request has them, with Kong's presets.
func (x *editing) given() map[string]any {
	fields := map[string]any{}
	maps.Copy(fields, x.kind.preset)
	maps.Copy(fields, x.Body)
	if x.parent != nil {
		fields[x.field] = map[string]any{"id": x.parent.id()}
	}
	return fields
}

func (x *editing) create(key string, status int) Answer {
	fields := x.given()
	e := &entity{kind: x.kind, workspace: x.workspace, fields: fields}
	switch {
	case key != "" && (isUUID.MatchString(key) || x.kind.name == ""):
		fields["id"] = key
	case key != "":
		fields[x.kind.name] = key
	}
	if e.id() == "" {
		fields["id"] = UUID()
	}
	fields["created_at"] = float64(x.Time.Unix())
	fields["updated_at"] = fields["created_at"]
	if a, bad := x.check(e); bad {
		return a
	}
	if e.kind.path == "admins" {
		x.along(e)
	}
	x.add(e)
	return Answer{Status: status, Body: fields}
}

// along makes what Kong makes with an admin.
func (x *editing) along(admin *entity) {
	token := UUID()
	for _, with := range []struct {
		field, path string
		fields      map[string]any
	}{
		{"consumer", "consumers", map[string]any{"username": admin.name() + "_ADMIN_", "type": 2.0}},
		{"rbac_user", "rbac/users", map[string]any{"name": admin.name(), "enabled": true, "user_token": "$2b$09$" + token, "user_token_ident": token[:5]}},
	} {
		e := &entity{kind: kindOf(with.path), workspace: x.workspace, fields: with.fields}
		e.fields["id"], e.fields["created_at"], e.fields["updated_at"] = UUID(), float64(x.Time.Unix()), float64(x.Time.Unix())
		admin.fields[with.field] = map[string]any{"id": e.id()}
		x.add(e)
	}
}

func (x *editing) add(e *entity) {
	if x.byID == nil {
		x.byID = map[string]*entity{}
	}
	x.entities = append(x.entities, e)
	x.byID[e.id()] = e
	x.note("create", e, nil, e.fields)
}

func (x *editing) upsert() Answer {
	e := x.found()
	if e == nil || x.key == "" {
		return x.create(x.key, http.StatusOK)
	}
	fields := x.given()
	if _, ok := fields[x.kind.name]; !ok && e.name() != "" {
		fields[x.kind.name] = e.name()
	}
	return x.replace(e, fields)
}

func (x *editing) update() Answer {
	e := x.found()
	if e == nil {
		return failed(http.StatusNotFound, "Not found")
	}
	return x.replace(e, merged(e.fields, x.Body))
}

// merged returns fields after a PATCH: the configuration is merged, all else is replaced.
func merged(fields, change map[string]any) map[string]any {
	fields = maps.Clone(fields)
	for name, v := range change {
		old, isRecord := fields[name].(map[string]any)
		if record, ok := v.(map[string]any); ok && isRecord && name == "config" {
			v = merged(old, record)
		}
		fields[name] = v
	}
	return fields
}

func (x *editing) replace(e *entity, fields map[string]any) Answer {
	fields["id"], fields["created_at"], fields["updated_at"] = e.id(), e.fields["created_at"], float64(x.Time.Unix())
	changed := &entity{kind: e.kind, workspace: e.workspace, fields: fields}
	if a, bad := x.check(changed); bad {
		return a
	}
	before := e.fields
	e.fields = fields
	x.note("update", e, before, fields)
	return Answer{Status: http.StatusOK, Body: fields}
}

// check looks for what a database refuses, and puts ids into foreign keys that name.
func (x *editing) check(e *entity) (Answer, bool) {
	if other := x.byID[e.id()]; other != nil && !other.is(e.kind, e.workspace) {
		return refused(http.StatusConflict, 5, "unique constraint violation", "UNIQUE violation detected on id"), true
	}
	if other := x.find(e.kind, e.workspace, e.name()); e.name() != "" && other != nil && other.id() != e.id() {
		return refused(http.StatusConflict, 5, "unique constraint violation", fmt.Sprintf("UNIQUE violation detected on '{%s=%q}'", e.kind.name, e.name())), true
	}
	if other := x.byID[e.id()]; other != nil && x.Method == http.MethodPost {
		return refused(http.StatusConflict, 3, "primary key violation", "primary key violation on key '{id=\""+e.id()+"\"}'"), true
	}
	for _, r := range e.kind.refs {
		given, ok := e.fields[r.field].(map[string]any)
		if !ok {
			continue
		}
		of := kindOfDAO(r.dao)
		key := referred(given)
		if name, ok := given[of.name].(string); ok && key == "" {
			key = name
		}
		to := x.find(of, e.workspace, key)
		if to == nil {
			return refused(http.StatusBadRequest, 4, "foreign key violation", "the foreign key '"+r.field+"' does not reference an existing '"+r.dao+"' entity."), true
		}
		e.fields[r.field] = map[string]any{"id": to.id()}
	}
	return Answer{}, false
}

func (x *editing) delete() Answer {
	e := x.found()
	if e == nil {
		return Answer{Status: http.StatusNoContent}
	}
	for _, other := range x.entities {
		for _, r := range other.kind.refs {
			if !r.cascade && r.dao == e.kind.dao && referred(other.fields[r.field]) == e.id() {
				return refused(http.StatusBadRequest, 4, "foreign key violation", "an existing '"+other.kind.dao+"' entity references this '"+r.dao+"' entity")
			}
		}
	}
	x.drop(e)
	return Answer{Status: http.StatusNoContent}
}

// drop deletes an entity and what goes with it.
func (x *editing) drop(e *entity) {
	x.entities = slices.DeleteFunc(x.entities, func(o *entity) bool { return o == e })
	delete(x.byID, e.id())
	x.note("delete", e, e.fields, nil)
	for _, other := range slices.Clone(x.entities) {
		for _, r := range other.kind.refs {
			if r.cascade && r.dao == e.kind.dao && referred(other.fields[r.field]) == e.id() && x.byID[other.id()] == other {
				x.drop(other)
			}
		}
	}
}

func (x *editing) note(operation string, e *entity, before, after map[string]any) {
	c := Change{
		Seq: len(x.changes) + 1, RequestID: x.RequestID, At: x.Time, Workspace: e.workspace, DAO: e.kind.dao,
		Key: e.id(), Name: e.name(), Operation: operation, Before: text(before), After: text(after), Row: UUID(),
	}
	if e.kind.secret {
		c.Name = ""
	}
	x.changes = append(x.changes, c)
}

var isUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// RandomID returns an id as Kong gives its requests. intN is as that of [rand.Rand].
func RandomID(intN func(n int) int) string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b [32]byte
	for i := range b {
		b[i] = letters[intN(len(letters))]
	}
	return string(b[:])
}

// UUID returns a random UUID.
func UUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
