package pipeline

import (
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// memory knows how far this process has seen the ledger get, so that it notices if
// the ledger forgets it: Redis was emptied or set back, also between two passes.
type memory struct {
	mu      sync.Mutex
	reached int64 // newest cursor of marks with a complete pass
	said    bool  // that the ledger forgot, since it was last well
}

// note takes marks that are in the ledger.
func (m *memory) note(marks *audit.Marks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if marks.Completed > 0 {
		m.reached, m.said = max(m.reached, marks.Cursor), false
	}
}

// forgotten takes the marks that a pass begins with. It returns the second up to which
// the ledger once knew everything, and 0 unless it has forgotten it.
func (m *memory) forgotten(marks *audit.Marks) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if marks.Cursor == 0 && marks.Completed == 0 {
		return m.reached
	}
	if marks.Completed > 0 {
		m.reached = max(m.reached, marks.Cursor)
	}
	return 0
}

// warnForgot logs, once for each time, that the ledger has forgotten what it knew.
func (p *Pipeline) warnForgot(err error) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	if p.memory.said {
		return
	}
	p.memory.said = true
	attrs := []any{}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	p.log.Warn("the ledger forgot what it knew, starting over with a full read", attrs...)
}
