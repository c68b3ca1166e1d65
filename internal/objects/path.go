package objects

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/changes"
)

// changesNothing reports whether a write to a path is known to leave no rows.
func changesNothing(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	path = strings.TrimRight(path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	return last == "validate" && strings.Contains(path, "/schemas/") || strings.HasSuffix(path, "/cache") ||
		strings.Contains(path, "/cache/") || last == "healthy" || last == "unhealthy"
}

// mayTouch reports whether a write without rows may have changed an entity that existed
// before and after it. names are the names by which a path may call that entity.
func mayTouch(method, path, dao, key string, names []string) bool {
	list, name := changes.Target(path)
	if method == http.MethodPost {
		_, creates := changes.KindIn(name)
		return !creates
	}
	kind, ok := changes.KindIn(list)
	switch {
	case !ok || changes.NamesByRelation(path, dao):
		return true
	case method == http.MethodDelete: // an entity that exists again was made by another write
		return false
	case kind != dao:
		return kind == "certificates" && dao == "snis"
	}
	return name == key || slices.Contains(names, name)
}
