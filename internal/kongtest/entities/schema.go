package entities

import (
	"slices"
	"strings"
)

// kind is a type of entity. Its facts come from the schemas of open source Kong, and
// from Kong's documentation for what only Enterprise has.
type kind struct {
	path   string // in the Admin API
	dao    string // in the log: dao_name
	name   string // field by which an entity can be addressed beside its id; unique in a workspace
	refs   []ref
	secret bool           // what it is called is a credential
	global bool           // not part of a workspace
	preset map[string]any // values that Kong fills in
}

// ref is a foreign key.
type ref struct {
	field, dao string
	cascade    bool // the entity is deleted with the one that it refers to; else that cannot be deleted
}

var kinds = []kind{
	{path: "services", dao: "services", name: "name", refs: []ref{{"client_certificate", "certificates", false}}, preset: map[string]any{
		"connect_timeout": 60000.0, "enabled": true, "port": 80.0, "protocol": "http", "read_timeout": 60000.0, "retries": 5.0, "write_timeout": 60000.0,
	}},
	{path: "routes", dao: "routes", name: "name", refs: []ref{{"service", "services", false}}, preset: map[string]any{
		"https_redirect_status_code": 426.0, "path_handling": "v0", "preserve_host": false, "protocols": []any{"http", "https"},
		"regex_priority": 0.0, "request_buffering": true, "response_buffering": true, "strip_path": true,
	}},
	{path: "plugins", dao: "plugins", name: "instance_name", refs: []ref{
		{"service", "services", true}, {"route", "routes", true}, {"consumer", "consumers", true}, {"consumer_group", "consumer_groups", true},
	}, preset: map[string]any{"enabled": true, "protocols": []any{"grpc", "grpcs", "http", "https"}, "config": map[string]any{}}},
	{path: "consumers", dao: "consumers", name: "username", preset: map[string]any{"type": 0.0}},
	{path: "consumer_groups", dao: "consumer_groups", name: "name"},
	{path: "key-auth", dao: "keyauth_credentials", name: "key", secret: true, refs: []ref{{"consumer", "consumers", true}}},
	{path: "basic-auth", dao: "basicauth_credentials", name: "username", refs: []ref{{"consumer", "consumers", true}}},
	{path: "hmac-auth", dao: "hmacauth_credentials", name: "username", refs: []ref{{"consumer", "consumers", true}}},
	{path: "jwt", dao: "jwt_secrets", name: "key", refs: []ref{{"consumer", "consumers", true}}, preset: map[string]any{"algorithm": "HS256"}},
	{path: "oauth2", dao: "oauth2_credentials", name: "client_id", refs: []ref{{"consumer", "consumers", true}}},
	{path: "acls", dao: "acls", name: "group", refs: []ref{{"consumer", "consumers", true}}},
	{path: "upstreams", dao: "upstreams", name: "name", refs: []ref{{"client_certificate", "certificates", false}}, preset: map[string]any{
		"algorithm": "round-robin", "slots": 10000.0, "use_srv_name": false,
	}},
	{path: "targets", dao: "targets", name: "target", refs: []ref{{"upstream", "upstreams", true}}, preset: map[string]any{"weight": 100.0}},
	{path: "certificates", dao: "certificates"},
	{path: "ca_certificates", dao: "ca_certificates"},
	{path: "snis", dao: "snis", name: "name", refs: []ref{{"certificate", "certificates", true}}},
	{path: "key-sets", dao: "key_sets", name: "name"},
	{path: "keys", dao: "keys", name: "name", refs: []ref{{"set", "key_sets", true}}},
	{path: "vaults", dao: "vaults", name: "prefix"},
	{path: "event-hooks", dao: "event_hooks", global: true},
	{path: "workspaces", dao: "workspaces", name: "name", global: true},
	{path: "rbac/users", dao: "rbac_users", name: "name", preset: map[string]any{"enabled": true}},
	{path: "rbac/roles", dao: "rbac_roles", name: "name", preset: map[string]any{"is_default": false}},
	{path: "admins", dao: "admins", name: "username", global: true, refs: []ref{{"consumer", "consumers", true}, {"rbac_user", "rbac_users", true}}, preset: map[string]any{
		"rbac_token_enabled": true, "status": 4.0,
	}},
}

func kindAt(path string) (kind, bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.path == path })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

func kindOfDAO(dao string) kind {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.dao == dao })]
}

// Kind is a type of entity, as a recorder knows it: key-auth, of which the log says
// keyauth_credentials.
type Kind struct{ Path, DAO string }

// Cascades returns what Kong deletes with an entity that is at such a path of the Admin API:
// /services/orders/plugins.
func Cascades(path string) []Kind {
	parent, ok := kindAt(path)
	if !ok {
		return nil
	}
	var children []Kind
	for _, k := range kinds {
		if slices.ContainsFunc(k.refs, func(r ref) bool { return r.cascade && r.dao == parent.dao }) {
			children = append(children, Kind{k.path, k.dao})
		}
	}
	return children
}

// ParsePath reads a path without a workspace, such as /services/orders/routes. It reports
// whether the path names one entity, rather than a list, and whether of a known kind.
func ParsePath(path string) (of Kind, named, ok bool) {
	steps := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(steps) == 0 {
		return Kind{}, false, false
	}
	k, ok := kindAt(steps[0])
	named = len(steps) == 2
	if len(steps) > 2 {
		// The entity below is in a list, or it is the one that a foreign key refers to.
		if i := slices.IndexFunc(k.refs, func(r ref) bool { return r.field == steps[2] }); ok && i >= 0 {
			k, named = kindOfDAO(k.refs[i].dao), len(steps) == 3
		} else {
			k, ok = kindAt(steps[2])
			named = len(steps) == 4
		}
	}
	return Kind{k.path, k.dao}, named, ok && len(steps) <= 4
}
