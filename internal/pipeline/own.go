package pipeline

import "github.com/kong-cloudtrail/relay/internal/audit"

// maxOwn bounds the ids of own reads that are remembered in memory.
const maxOwn = 10_000

// ownReads are the ids under which Kong recorded this relay's reads, newest last.
type ownReads struct {
	ids   map[string]bool
	queue []string
	noted int // how many at the front of queue the ledger knows
}

func (o *ownReads) add(ids []string) {
	if o.ids == nil {
		o.ids = map[string]bool{}
	}
	for _, id := range ids {
		e := audit.Entry{RequestID: id}
		if id = audit.Identity(&e); o.ids[id] {
			continue
		}
		o.ids[id] = true
		if o.queue = append(o.queue, id); len(o.queue) > maxOwn {
			delete(o.ids, o.queue[0])
			o.queue = o.queue[1:]
			o.noted = max(0, o.noted-1)
		}
	}
}

// forgotten tells that the ledger is another one, which knows none of them.
func (o *ownReads) forgotten() { o.noted = 0 }

func (o *ownReads) has(id string) bool { return o.ids[id] }
