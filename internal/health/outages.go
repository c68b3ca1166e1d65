package health

import "github.com/kong-cloudtrail/relay/internal/audit"

// store keeps an outage until TakeOutages. t.mu is held.
func (t *Tracker) store(o *audit.Outage) {
	for i := range t.changed {
		if t.changed[i].ID == o.ID {
			t.changed[i] = *o
			return
		}
	}
	if len(t.changed) < maxOutages {
		t.changed = append(t.changed, *o)
	}
}

// TakeOutages returns the outages that have changed since it was last called. The caller
// gives back those that it could not store.
func (t *Tracker) TakeOutages() []audit.Outage {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.changed
	t.changed = nil
	return list
}

// GiveBack takes outages that could not be stored, unless they have changed again.
func (t *Tracker) GiveBack(list []audit.Outage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	newer := t.changed
	t.changed = list
	for i := range newer {
		t.store(&newer[i])
	}
}
