package announce

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Over random schedules of triggers, rows, failures, held leases and reruns: passes
// exclude each other, polls keep their distance, and once nothing fails any more every
// row is seen and the scheduler comes to rest.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{T: t, s: newScheduler(), now: epoch, rows: map[string]time.Time{}, seen: map[string]time.Time{}}
		m.s.RequestReconcile(m.now, false)
		steps := rapid.IntRange(20, 400).Draw(t, "steps")
		for range steps {
			m.step()
		}
		// All is well again: whatever is announced and has a row is seen.
		m.calm = true
		for range 12_000 {
			m.advance(5 * ms)
		}
		for id, at := range m.rows {
			if m.seen[id].IsZero() {
				t.Fatalf("%s was not seen, its row is of %s", id, at.Sub(epoch))
			}
		}
		if start, wake := m.s.Next(m.now); start.Kind != audit.NoPass || !wake.IsZero() && wake.Sub(m.now) < time.Minute {
			t.Fatalf("not at rest: %s, next after %s", start.Kind, wake.Sub(m.now))
		}
	})
}

type model struct {
	*rapid.T
	s    *Scheduler
	now  time.Time
	calm bool
	next int
	rows map[string]time.Time // when the row of an announced id appears
	seen map[string]time.Time

	tail, reconcile *underWay
	lastTail        time.Time
}

type underWay struct {
	began, ends time.Time
	result      Result
}

func (m *model) step() {
	switch rapid.IntRange(0, 9).Draw(m.T, "step") {
	case 0, 1, 2:
		id := fmt.Sprint("r", m.next)
		m.next++
		m.rows[id] = m.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(m.T, "row delay")) * ms)
		m.s.Notify(m.now, []string{id})
	case 3:
		m.s.Notify(m.now, nil)
	case 4:
		began := m.now
		m.advance(10 * ms)
		var list []audit.Announcement
		for id, at := range m.rows {
			if m.seen[id].IsZero() {
				list = append(list, audit.Announcement{ID: id, At: at})
			}
		}
		m.s.Listed(m.now, began, list)
	case 5:
		m.s.StruckOff(m.now, m.s.ToStrikeOff())
	default:
		for range rapid.IntRange(1, 60).Draw(m.T, "ticks") {
			m.advance(5 * ms)
		}
	}
}

// advance lets time pass and does what a host does.
func (m *model) advance(d time.Duration) {
	m.now = m.now.Add(d)
	m.end(audit.Tail, &m.tail)
	m.end(audit.Reconcile, &m.reconcile)
	start, wake := m.s.Next(m.now)
	if !wake.IsZero() && !wake.After(m.now) {
		m.Fatalf("nothing to do, and asked to come back at once")
	}
	u := &underWay{began: m.now, ends: m.now.Add(20 * ms), result: Result{Began: m.now}}
	if !m.calm {
		u.ends = m.now.Add(time.Duration(rapid.IntRange(1, 400).Draw(m.T, "pass takes")) * ms)
		switch rapid.IntRange(0, 9).Draw(m.T, "outcome") {
		case 0:
			u.result.Failed = true
		case 1:
			u.result.LeaseHeld, u.result.LeaseLeft = true, time.Duration(rapid.IntRange(0, 10_000).Draw(m.T, "left"))*ms
		case 2:
			u.result.Rerun = true
		}
	}
	switch start.Kind {
	case audit.Tail:
		if m.tail != nil {
			m.Fatalf("two tails at once")
		}
		if gap := m.now.Sub(m.lastTail); gap < minInterval && !start.Standby {
			m.Fatalf("two tails within %s", gap)
		}
		m.tail, m.lastTail = u, m.now
	case audit.Reconcile:
		if m.tail != nil || m.reconcile != nil {
			m.Fatalf("a reconcile beside another pass")
		}
		m.reconcile = u
	default:
	}
}

// end ends a pass that has come to its end. It shows the rows that were there when
// it began.
func (m *model) end(p audit.PassKind, at **underWay) {
	u := *at
	if u == nil || m.now.Before(u.ends) {
		return
	}
	*at = nil
	if !u.result.Failed && !u.result.LeaseHeld {
		for id, row := range m.rows {
			if !row.After(u.began) && m.seen[id].IsZero() {
				m.seen[id] = m.now
				m.s.Seen(entries(id))
			}
		}
	}
	m.s.Ended(m.now, p, u.result)
}
