package walk

import (
	"maps"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxSeam bounds the ids that a seam remembers. Further entries may be handed on twice, and
// the ledger knows them the second time.
const maxSeam = 20_000

// seam remembers the entries of the seconds in which two queries of an
// oldest-first walk overlap, so that they are handed on once. The zero value is
// ready.
type seam struct {
	ids    map[string]int64 // the timestamp of each entry, by id
	latest int64            // the latest of those timestamps
}

// add reports whether an entry was not handed on before, and remembers it unless it is
// older than edge, a Unix second.
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

// shares reports whether one of the entries may be one that was handed on before: the seam
// remembers it, or remembers none, or may have left some out.
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
