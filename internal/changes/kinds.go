package changes

import (
	"net/url"
	"strings"
)

// kindOfList maps the lists of the Admin API to the kind of the entities in each.
var kindOfList = map[string]string{
	"services": "services", "routes": "routes", "consumers": "consumers", "plugins": "plugins", "upstreams": "upstreams",
	"targets": "targets", "certificates": "certificates", "snis": "snis", "ca_certificates": "ca_certificates", "vaults": "vaults",
	"keys": "keys", "key-sets": "key_sets", "consumer_groups": "consumer_groups", "acls": "acls",
	"basic-auth": "basicauth_credentials", "key-auth": "keyauth_credentials", "hmac-auth": "hmacauth_credentials",
	"jwt": "jwt_secrets", "oauth2": "oauth2_credentials", "workspaces": "workspaces",
	"users": "rbac_users", "roles": "rbac_roles", "admins": "admins", "event-hooks": "event_hooks",
}

// KindIn returns the kind of the entities in a list of the Admin API. A list is the segment of
// a path before an entity's id or name.
func KindIn(list string) (kind string, ok bool) {
	kind, ok = kindOfList[list]
	return kind, ok
}

// KindNamed returns the kind of entity that a person means by a name: routes for route,
// keyauth_credentials for key-auth. It takes any other name for the name of a kind itself.
func KindNamed(name string) string {
	for _, list := range []string{name, name + "s"} {
		if kind, ok := kindOfList[list]; ok {
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
// the empty string if the path does not show it.
func Kind(path string) string {
	list, name := Target(path)
	if kind, ok := kindOfList[name]; ok {
		return kind
	}
	return kindOfList[list]
}

// Target returns the last two segments of a path of the Admin API: a list, which is empty if
// there is one segment, and the name or id of an entity in that list, or another list.
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

// NamesByRelation reports whether a path of the Admin API may name an entity of a kind by the
// entity to which it belongs, as /routes/orders/service does. Such a path does not show the
// name of the entity itself.
func NamesByRelation(path, kind string) bool {
	path, _, _ = strings.Cut(path, "?")
	path = strings.Trim(path, "/")
	return strings.Count(path, "/") >= 2 && strings.HasSuffix(path, "/"+strings.TrimSuffix(kind, "s"))
}
