package pipeline

import (
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// memory remembers the newest cursor that this process has seen in the ledger, so that
// it notices when the ledger has lost it, even between two passes: Redis was emptied or
// restored from a snapshot.
type memory struct {
	mu      sync.Mutex
	reached int64 // newest cursor of marks with a complete pass
	said    bool  // the loss was logged
}

// note takes marks that are in the ledger.
func (m *memory) note(marks *audit.Marks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if marks.Completed > 0 {
		m.reached, m.said = max(m.reached, marks.Cursor), false
	}
}

// forgottenUpTo takes the marks that a pass begins with. If the ledger has lost its marks, it
// returns the second up to which the ledger had recorded everything, else 0.
func (m *memory) forgottenUpTo(marks *audit.Marks) int64 {
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

// warnForgot logs, once for each loss, that the ledger has lost what it had recorded.
func (p *Pipeline) warnForgot(err error) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	if p.memory.said {
		return
	}
	p.memory.said = true
	attrs := []any{"hint", "nothing to do now: what Kong still has is delivered again and counted as repeated; " +
		"keep Redis' data on disk (appendonly yes), give it no eviction, and no FLUSHALL"}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	p.log.Warn("the ledger forgot what it knew, starting over with a full read", attrs...)
}
