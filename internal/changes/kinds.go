package changes

import (
	"net/url"
	"strings"
)

// lists are those of the Admin API, with the kind of the entities in each.
var lists = map[string]string{
	"services": "services", "routes": "routes", "consumers": "consumers", "plugins": "plugins", "upstreams": "upstreams",
	"targets": "targets", "certificates": "certificates", "snis": "snis", "ca_certificates": "ca_certificates", "vaults": "vaults",
	"keys": "keys", "key-sets": "key_sets", "consumer_groups": "consumer_groups", "acls": "acls",
	"basic-auth": "basicauth_credentials", "key-auth": "keyauth_credentials", "hmac-auth": "hmacauth_credentials",
	"jwt": "jwt_secrets", "oauth2": "oauth2_credentials", "workspaces": "workspaces",
	"users": "rbac_users", "roles": "rbac_roles", "admins": "admins", "event-hooks": "event_hooks",
}

// KindIn returns the kind of the entities in a list of the Admin API, which is the step of
// a path before their id or name.
func KindIn(list string) (kind string, ok bool) {
	kind, ok = lists[list]
	return kind, ok
}

// KindNamed returns the kind of entity that a person calls by a name: routes for route,
// keyauth_credentials for key-auth. A name that says nothing else is that of a kind.
func KindNamed(name string) string {
	for _, list := range []string{name, name + "s"} {
		if kind, ok := lists[list]; ok {
			return kind
		}
	}
	kind := strings.ReplaceAll(name, "-", "_")
	if !strings.HasSuffix(kind, "s") {
		kind += "s"
	}
	return kind
}

// Kind returns the kind of the entity that a request to a path of the Admin API writes, or
// the empty string if the path does not tell.
func Kind(path string) string {
	list, name := Target(path)
	if kind, ok := lists[name]; ok {
		return kind
	}
	return lists[list]
}

// Target returns the last two steps of a path of the Admin API: a list, or the empty string
// if there is one step, and the name or id of an entity in it, or of another list.
func Target(path string) (list, name string) {
	path, _, _ = strings.Cut(path, "?")
	path = strings.Trim(path, "/")
	if at := strings.LastIndexByte(path, '/'); at >= 0 {
		path, name = path[:at], path[at+1:]
		list = path[strings.LastIndexByte(path, '/')+1:]
	} else {
		name = path
	}
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	return list, name
}

// NamesByKind reports whether a path of the Admin API may name an entity of a kind as the
// one that another entity has, such as /routes/orders/service.
func NamesByKind(path, kind string) bool {
	path, _, _ = strings.Cut(path, "?")
	path = strings.Trim(path, "/")
	return strings.Count(path, "/") >= 2 && strings.HasSuffix(path, "/"+strings.TrimSuffix(kind, "s"))
}
