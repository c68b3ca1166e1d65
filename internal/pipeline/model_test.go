package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// TestModel makes random schedules and checks after every step what must always
// hold, and at the end, when all is well again, that nothing is missing.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var problem error
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, p)
			problem = m.play()
		})
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}

type model struct {
	*world
	plan plan
	mu   sync.Mutex
	rand *rand.Rand

	existed   map[string]int64 // every row there ever was
	exempt    map[string]bool  // rows that came late or during a pass: only a full read is sure to find them
	refused   map[string]bool
	mayRepeat bool
}

func newModel(t *testing.T, p plan) *model {
	k := &kong{sorts: p.Sorts, filters: p.Filters, exclusive: p.Exclusive, positional: p.Positional, ownReads: p.OwnReads,
		maxBytes: p.MaxBytes, delay: p.KongDelay}
	m := &model{plan: p, rand: rand.New(rand.NewPCG(p.Seed, 1)), existed: map[string]int64{}, exempt: map[string]bool{}, refused: map[string]bool{}}
	m.world = newWorld(t, k, func(o *Options) {
		o.PageSize, o.Workers, o.BatchEntries, o.FlightBytes, o.SkipOwnReads = p.PageSize, p.Workers, p.Batch, p.FlightBytes, p.SkipOwn
		o.Adopt = true // rows are purged long before they expire
	})
	m.destination.delay = p.SinkDelay
	return m
}

func (m *model) chance(percent int) bool { return percent > 0 && m.rand.IntN(100) < percent }

// add writes rows; those that a tail cannot be sure to see are exempt.
func (m *model) add(exempt bool, times ...int64) {
	marks := m.store.saved()
	cursor := marks.Cursor
	if marks.Resume != nil {
		cursor = max(cursor, marks.Resume.Newest, marks.Resume.Started)
	}
	for i, id := range m.kong.add(times...) {
		m.existed[id] = times[i]
		m.exempt[id] = exempt || times[i] < cursor-4
	}
}

func (m *model) play() error {
	m.add(false, span(m.now()-3000, m.plan.Rows, 7)...)
	for i, e := range m.plan.Steps {
		if err := m.step(e); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, e.Do, err)
		}
		if err := m.check(); err != nil {
			return fmt.Errorf("after step %d, %s: %w", i, e.Do, err)
		}
	}
	// All is well again, and deferred entries are tried.
	m.heal()
	m.advance(11 * time.Second)
	for _, req := range []Request{{Kind: audit.Reconcile, Full: true}, {Kind: audit.Reconcile, Full: true}} {
		s, err := m.run(req)
		if err != nil || !s.Complete || s.Failed != 0 {
			return fmt.Errorf("at the end: %w, %+v", err, s)
		}
		m.kong.ownReads = false // the second pass sees the reads of the first
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	for _, e := range m.kong.all() {
		if o := m.store.outcome(e.ID); o == audit.NoOutcome || o == audit.Deferred {
			return fmt.Errorf("row %s of %d is still %s at the end", e.ID, e.Timestamp, o)
		}
	}
	// From here on nothing is new, and nothing is put.
	calls := m.destination.putCalls()
	for _, kind := range []audit.PassKind{audit.Tail, audit.Reconcile} {
		if s, err := m.run(Request{Kind: kind}); err != nil || s.New != 0 || m.destination.putCalls() != calls {
			return fmt.Errorf("a pass with nothing new: %w, %+v", err, s)
		}
	}
	return nil
}

func (m *model) heal() {
	m.kong.hook, m.destination.put, m.store.record = nil, nil, nil
}

func (m *model) step(e event) error {
	m.heal()
	now := m.now()
	times := span(now-e.Spread, e.N, max(e.Spread/int64(e.N), min(1, e.Spread)))
	for i := range times {
		times[i] = min(times[i], now)
	}
	switch e.Do {
	case "add":
		m.add(false, times...)
	case "late":
		for i := range times {
			times[i] -= e.Back
		}
		m.add(false, times...)
	case "ahead":
		for i := range times {
			times[i] += 90_000
		}
		m.add(true, times...)
	case "purge":
		m.kong.purge(e.N)
	case "advance":
		m.advance(e.After)
	case "empty":
		m.store.empty()
		m.mayRepeat = true
	case "restart":
		m.restart()
	case "resort": // Kong becomes another release
		m.kong.filters = m.kong.sorts && !m.kong.filters
		m.kong.sorts = m.kong.filters || !m.kong.sorts
		m.kong.positional = m.kong.positional && m.kong.sorts && m.kong.filters == m.plan.Filters
		m.kong.sorted = nil
	default:
		return m.makePass(e)
	}
	return nil
}

func (m *model) makePass(e event) error {
	if m.kong.positional {
		e.PurgeEvery = 0 // within a second that fills pages it shifts others past the reader
	}
	if m.plan.PageSize <= 2 && e.PurgeEvery > 0 {
		e.PurgeEvery += 2 // rows do not expire as fast as they are read
	}
	m.inject(e)
	ctx, cancel := context.WithCancel(m.t.(*testing.T).Context())
	defer cancel()
	req := Request{Kind: audit.Reconcile, Wait: 11 * time.Second}
	switch e.Do {
	case "tail":
		req.Kind = audit.Tail
	case "full":
		req.Full = true
	case "window":
		req.Kind, req.Since, req.Until = audit.Window, m.now()-e.Back-e.Spread, m.now()-e.Spread
	case "dry run":
		req.DryRun = true
		m.restart() // it begins no ledger, and goes on with none that is gone
	case "deadline":
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, e.After+time.Second)
		defer done()
	case "cancel":
		timer := time.AfterFunc(e.After, cancel)
		defer timer.Stop()
	case "steal":
		stolen := make(chan struct{})
		timer := time.AfterFunc(e.After, func() {
			defer close(stolen)
			m.store.steal()
		})
		defer func() {
			if !timer.Stop() {
				<-stolen // from this pass, and not from the next
			}
		}()
	}
	writes := m.store.writes
	endTails := m.tails(ctx, e)
	s, err := m.p.Run(ctx, req)
	endTails()
	faulty := e.PageFails+e.Unresolved+e.CallFails+e.AnswerLost+e.RecordFails > 0 || e.Down || e.Settings
	interrupted := e.Do == "deadline" || e.Do == "cancel" || e.Do == "steal"
	switch {
	case err != nil && !faulty && !interrupted:
		return fmt.Errorf("a pass without a fault failed: %w", err)
	case (err == nil) != s.Complete:
		return fmt.Errorf("complete is %v, with error %w", s.Complete, err)
	case err == nil && s.Failed != 0:
		return fmt.Errorf("failed in a complete pass: %+v", s)
	case s.Delivered+s.Dead+s.Deferred+s.Failed < s.New && !req.DryRun:
		return fmt.Errorf("the sum does not add up: %+v", s)
	case req.DryRun && m.store.writes != writes:
		return errors.New("a dry run wrote something")
	}
	if err == nil && req.Full && req.Kind == audit.Reconcile && !req.DryRun && e.RowsPerPage+e.PurgeEvery == 0 && !m.kong.ownReads && !interrupted {
		for _, row := range m.kong.all() {
			if m.store.outcome(row.ID) == audit.NoOutcome && m.existed[row.ID] != 0 {
				return fmt.Errorf("a full read left out row %s of %d", row.ID, row.Timestamp)
			}
		}
	}
	return nil
}

// tails makes tails at random moments, mostly beside the pass, until end is called.
func (m *model) tails(ctx context.Context, e event) (end func()) {
	if e.TailWanted == 0 || m.plan.PageSize <= 3 || e.Do == "dry run" || e.Do == "window" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m.mu.Lock()
			wanted, wait := m.chance(e.TailWanted), time.Duration(m.rand.IntN(200_000))*time.Microsecond
			m.mu.Unlock()
			if err := sleep(ctx, wait); err != nil {
				return
			}
			if wanted && m.p.underWay() {
				_, _ = m.p.Run(ctx, Request{Kind: audit.Tail}) // the pass says what became of it
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// underWay reports whether a tail can be made beside a pass.
func (p *Pipeline) underWay() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current != nil
}

// inject arranges the faults of a pass.
func (m *model) inject(e event) {
	if e.PageFails > 0 || e.RowsPerPage > 0 || e.PurgeEvery > 0 {
		added := 0
		m.kong.hook = func(n int, _ audit.Query) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if added < 60 && e.RowsPerPage > 0 {
				added += e.RowsPerPage
				for range e.RowsPerPage {
					m.add(true, m.now()-m.rand.Int64N(e.Back+1))
				}
			}
			// A log that is emptied while it is read is an error, which the walk's tests expect.
			if e.PurgeEvery > 0 && n%e.PurgeEvery == 0 && len(m.kong.all()) > 1 {
				m.kong.purge(1)
			}
			if m.chance(e.PageFails) {
				return errPage
			}
			return nil
		}
	}
	if e.AnswerLost > 0 || e.Do == "cancel" || e.Do == "deadline" {
		m.mayRepeat = true
	}
	m.destination.put = func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case e.Down || m.chance(e.CallFails):
			return make([]audit.Verdict, len(entries)), errCall
		case e.Settings && n%3 == 0:
			return make([]audit.Verdict, len(entries)), audit.SettingsErrorf("", "a setting")
		case m.chance(e.AnswerLost):
			m.destination.accept(entries)
			return make([]audit.Verdict, len(entries)), errors.New("connection reset")
		}
		verdicts := make([]audit.Verdict, len(entries))
		for i := range entries {
			switch {
			case e.Refuses && scramble(uint64(len(entries[i].ID))+uint64(entries[i].Timestamp))%7 == 0:
				m.refused[entries[i].ID] = true
				verdicts[i] = audit.Verdict{Status: audit.Rejected, Code: "InvalidData"}
			case m.chance(e.Unresolved):
				verdicts[i].Code = "Throttling"
			default:
				verdicts[i] = m.destination.accept(entries[i : i+1])[0]
			}
		}
		return verdicts, nil
	}
	if e.RecordFails > 0 {
		chance := rand.New(rand.NewPCG(m.plan.Seed, 2)) // guarded by the store, which calls
		m.store.record = func(int, []audit.Record) error {
			if chance.IntN(100) < e.RecordFails {
				return errors.New("connection refused")
			}
			return nil
		}
	}
}

// check holds the world against what must always be so.
func (m *model) check() error {
	marks, now := m.store.saved(), m.now()
	for name, mark := range map[string]int64{"cursor": marks.Cursor, "reconciled through": marks.ReconciledThrough, "full at": marks.FullAt} {
		if mark > now {
			return fmt.Errorf("%s is %d, %d s ahead of Kong's clock", name, mark, mark-now)
		}
	}
	known := map[string]bool{}
	for _, row := range m.kong.all() {
		known[row.ID] = true
		switch o := m.store.outcome(row.ID); o {
		case audit.NoOutcome:
			if row.Timestamp < marks.Cursor-4 && !m.exempt[row.ID] && m.existed[row.ID] != 0 {
				return fmt.Errorf("the cursor %d passed row %s of %d, which is new", marks.Cursor, row.ID, row.Timestamp)
			}
		case audit.Delivered:
			if m.destination.got(row.ID) == 0 {
				return fmt.Errorf("row %s is recorded as delivered and was never accepted", row.ID)
			}
		case audit.Dead, audit.Deferred:
			l, ok := m.store.letters[row.ID]
			if !ok || l.Entry.ID != row.ID || l.Outcome != o {
				return fmt.Errorf("row %s is %s without a letter", row.ID, o)
			}
			if o == audit.Dead && !m.refused[row.ID] && time.Since(l.Since) < 24*time.Hour {
				return fmt.Errorf("row %s was made a dead letter before its time", row.ID)
			}
		case audit.Dropped:
			return fmt.Errorf("row %s was dropped by nobody", row.ID)
		case audit.Own:
			if m.existed[row.ID] != 0 {
				return fmt.Errorf("row %s was taken for an own read", row.ID)
			}
		}
	}
	for _, id := range m.destination.ids() {
		if _, ok := m.existed[id]; !ok && !known[id] && !m.plan.OwnReads {
			return fmt.Errorf("%s was delivered and never existed", id)
		}
		if n := m.destination.got(id); n > 1 && !m.mayRepeat {
			return fmt.Errorf("row %s was delivered %d times", id, n)
		}
	}
	return nil
}
