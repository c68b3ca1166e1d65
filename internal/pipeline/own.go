package pipeline

import (
	"slices"
	"strings"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxOwn bounds the ids of own reads that are remembered in memory.
const maxOwn = 10_000

// ownReads are the ids under which Kong recorded this relay's reads, newest
// last. It is safe for concurrent use.
type ownReads struct {
	mu    sync.Mutex
	ids   map[string]bool // and whether a page has shown the entry
	queue []string
	noted int // how many at the front of queue the ledger knows
}

func (o *ownReads) add(ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids == nil {
		o.ids = map[string]bool{}
	}
	for _, id := range ids {
		e := audit.Entry{RequestID: strings.Clone(id)}
		id = audit.Identity(&e)
		if _, had := o.ids[id]; had {
			continue
		}
		o.ids[id] = false
		if o.queue = append(o.queue, id); len(o.queue) > maxOwn {
			delete(o.ids, o.queue[0])
			o.queue = o.queue[1:]
			o.noted = max(0, o.noted-1)
		}
	}
}

// forgotten tells that the ledger is another one, which knows none of them.
func (o *ownReads) forgotten() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noted = 0
}

func (o *ownReads) has(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, had := o.ids[id]
	return had
}

// shown tells whether id is one of them that no page has shown before.
func (o *ownReads) shown(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	before, had := o.ids[id]
	if had {
		o.ids[id] = true
	}
	return had && !before
}

// unnoted returns the ids that the ledger does not know yet.
func (o *ownReads) unnoted() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.queue[o.noted:])
}

// note tells that the ledger knows ids, the oldest that unnoted returned.
func (o *ownReads) note(ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(ids) > 0 {
		o.noted = max(o.noted, slices.Index(o.queue, ids[len(ids)-1])+1)
	}
}
