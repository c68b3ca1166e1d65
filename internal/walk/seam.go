package walk

import (
	"maps"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxSeam bounds the ids that a seam remembers. Beyond it, the ledger finds what comes
// twice.
const maxSeam = 20_000

// seam remembers the entries of the seconds in which two queries of an
// oldest-first walk overlap, so that they are handed on once. The zero value is
// ready.
type seam struct {
	ids    map[string]int64 // and their timestamps
	latest int64            // of those timestamps
}

// add reports whether an entry has not been handed on before, and remembers it if
// it is not older than edge, a Unix second.
func (s *seam) add(e *audit.Entry, edge int64) bool {
	if e.Timestamp <= s.latest {
		if _, handedOn := s.ids[e.ID]; handedOn {
			return false
		}
	}
	if e.Timestamp >= edge && len(s.ids) < maxSeam {
		if s.ids == nil {
			s.ids = map[string]int64{}
		}
		s.ids[strings.Clone(e.ID)] = e.Timestamp // a copy: the id is a part of its page's memory
		s.latest = max(s.latest, e.Timestamp)
	}
	return true
}

// shares reports whether entries hold one that the seam remembers, or it may have forgotten
// some, or knows none.
func (s *seam) shares(entries []audit.Entry) bool {
	if len(s.ids) == 0 || len(s.ids) == maxSeam {
		return true
	}
	return slices.ContainsFunc(entries, func(e audit.Entry) bool {
		_, known := s.ids[e.ID]
		return known
	})
}

// prune forgets what is older than a Unix second.
func (s *seam) prune(before int64) {
	maps.DeleteFunc(s.ids, func(_ string, t int64) bool { return t < before })
}
