package objects

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// collections are the lists of the Admin API and the kinds of entities in them.
var collections = map[string]string{
	"services": "services", "routes": "routes", "consumers": "consumers", "plugins": "plugins", "upstreams": "upstreams",
	"targets": "targets", "certificates": "certificates", "snis": "snis", "ca_certificates": "ca_certificates", "vaults": "vaults",
	"keys": "keys", "key-sets": "key_sets", "consumer_groups": "consumer_groups", "acls": "acls",
	"basic-auth": "basicauth_credentials", "key-auth": "keyauth_credentials", "hmac-auth": "hmacauth_credentials",
	"jwt": "jwt_secrets", "oauth2": "oauth2_credentials", "workspaces": "workspaces",
	"users": "rbac_users", "roles": "rbac_roles", "admins": "admins", "event-hooks": "event_hooks",
}

// changesNothing reports whether a write to a path is known to leave no rows.
func changesNothing(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	path = strings.TrimRight(path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	return last == "validate" && strings.Contains(path, "/schemas/") || strings.HasSuffix(path, "/cache") ||
		strings.Contains(path, "/cache/") || last == "healthy" || last == "unhealthy"
}

// mayTouch reports whether a write whose rows are not there may have changed an entity
// that existed before and after. names are what its paths may call it.
func mayTouch(method, path, dao, key string, names []string) bool {
	path, _, _ = strings.Cut(path, "?")
	steps := strings.Split(strings.Trim(path, "/"), "/")
	n := len(steps)
	if method == http.MethodPost {
		_, creates := collections[steps[n-1]]
		return !creates
	}
	if n < 2 {
		return true
	}
	kind, ok := collections[steps[n-2]]
	switch {
	case !ok:
		return true
	case method == http.MethodDelete: // an entity that exists again was made by another write
		return false
	case kind != dao:
		return kind == "certificates" && dao == "snis"
	}
	id := steps[n-1]
	if plain, err := url.PathUnescape(id); err == nil {
		id = plain
	}
	return id == key || slices.Contains(names, id)
}
