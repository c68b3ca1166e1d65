package delivery

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// The tests of how a delivery copes with a destination or a ledger that fails are
// those of the pipeline, which see whole passes. These are about what a pass and the
// tails beside it share.

// ledger remembers outcomes in memory.
type ledger struct {
	mu       sync.Mutex
	outcomes map[string]audit.Outcome
}

func (l *ledger) Lookup(_ context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]audit.Outcome, len(entries))
	for i := range entries {
		out[i] = l.outcomes[entries[i].ID]
	}
	return out, nil
}

func (l *ledger) Record(_ context.Context, records []audit.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.outcomes[r.ID] = r.Outcome
	}
	return nil
}

// destination accepts what it is given, batches that begin with a held entry only once
// that entry has been let go.
type destination struct {
	held map[string]chan struct{}

	mu  sync.Mutex
	got []string
}

func (d *destination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	if held := d.held[entries[0].ID]; held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return verdicts, context.Cause(ctx)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		verdicts[i].Status = audit.Accepted
		d.got = append(d.got, entries[i].ID)
	}
	return verdicts, nil
}

func (d *destination) hold(ids ...string) {
	d.held = map[string]chan struct{}{}
	for _, id := range ids {
		d.held[id] = make(chan struct{})
	}
}

func (d *destination) ids() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(slices.Values(d.got))
}

func newDelivery(l Ledger, change ...func(*Options)) *Delivery {
	o := Options{
		Ledger: l, Valid: func() error { return nil }, Retention: func(*audit.Entry) time.Duration { return time.Hour }, Unrecorded: &Unrecorded{},
		BatchEntries: 2, BatchBytes: 1 << 20, RetryFor: time.Minute, RecordFor: time.Minute,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

// page returns entries of these seconds, whose ids are the seconds.
func page(seconds ...int64) []audit.Entry {
	list := make([]audit.Entry, len(seconds))
	for i, at := range seconds {
		list[i] = audit.Entry{ID: strconv.FormatInt(at, 10), Timestamp: at}
	}
	return list
}

func add(ctx context.Context, t *testing.T, w *Workers, entries []audit.Entry) {
	t.Helper()
	if err := errors.Join(w.Add(ctx, entries, 1000), w.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
}

// Batches end in any order. What is safe ends before the first entry without an
// outcome, and the token is that of the last page of which every entry has one.
func TestSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dest := &ledger{outcomes: map[string]audit.Outcome{}}, &destination{}
		dest.hold("101", "103")
		d := newDelivery(l)
		w, ctx := d.NewWorkers(t.Context(), t.Context(), dest, 4, 1<<20)
		check := func(when string, safe int64, offset string) {
			t.Helper()
			synctest.Wait()
			if s, o := d.Safe(), d.SafeOffset(); s != safe || o != offset {
				t.Errorf("%s: safe through %d, offset %q, want %d, %q", when, s, o, safe, offset)
			}
		}
		check("before anything was read", 0, "")
		add(ctx, t, w, page(101, 102))
		d.NoteRead(102, "first")
		add(ctx, t, w, page(103, 104))
		d.NoteRead(104, "second")
		add(ctx, t, w, page(105, 106))
		d.NoteRead(106, "third")
		check("while two batches are in flight", 100, "")
		close(dest.held["103"])
		check("while the first batch is in flight", 100, "")
		finish := d.Reserve(104)
		close(dest.held["101"])
		check("while a tail reads from 104", 103, "third")
		finish()
		check("at the end", 106, "third")
		d.Restart()
		check("after a restart", 0, "")
		if err := w.Wait(); err != nil {
			t.Fatal(err)
		}
		if c := d.Counts(); c != (Counts{Read: 6, New: 6, Delivered: 6}) {
			t.Errorf("%+v", c)
		}
	})
}

// What the workers of a walk have in flight is not put by those of a tail, and the
// other way round.
func TestSharedFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dest := &ledger{outcomes: map[string]audit.Outcome{}}, &destination{}
		dest.hold("101", "103")
		d := newDelivery(l)
		walk, walking := d.NewWorkers(t.Context(), t.Context(), dest, 1, 1<<20)
		tail, tailing := d.NewWorkers(t.Context(), t.Context(), dest, 1, 1<<20)
		add(walking, t, walk, page(101, 102))
		add(tailing, t, tail, page(102, 103))
		add(walking, t, walk, page(103))
		close(dest.held["101"])
		close(dest.held["103"])
		if err := errors.Join(walk.Wait(), tail.Wait()); err != nil {
			t.Fatal(err)
		}
		if got := dest.ids(); !slices.Equal(got, []string{"101", "102", "103"}) {
			t.Errorf("put %v", got)
		}
		if c := d.Counts(); c != (Counts{Read: 5, New: 3, Delivered: 3}) {
			t.Errorf("%+v", c)
		}
	})
}

// A dry run looks up and counts, and neither puts nor records.
func TestDryRun(t *testing.T) {
	l, dest := &ledger{outcomes: map[string]audit.Outcome{"101": audit.Delivered}}, &destination{}
	d := newDelivery(l, func(o *Options) { o.DryRun = true })
	w, ctx := d.NewWorkers(t.Context(), t.Context(), dest, 1, 1<<20)
	add(ctx, t, w, page(101, 102, 2000))
	if err := w.Wait(); err != nil {
		t.Fatal(err)
	}
	if c := d.Counts(); c != (Counts{Read: 3, New: 2, Ahead: 1}) {
		t.Errorf("%+v", c)
	}
	if len(dest.got) != 0 || len(l.outcomes) != 1 {
		t.Errorf("put %v, recorded %v", dest.got, l.outcomes)
	}
}

// Nothing is put once the lease is lost.
func TestInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dest := &ledger{outcomes: map[string]audit.Outcome{}}, &destination{}
		d := newDelivery(l, func(o *Options) { o.Valid = func() error { return audit.ErrLeaseLost } })
		w, ctx := d.NewWorkers(t.Context(), t.Context(), dest, 1, 1<<20)
		add(ctx, t, w, page(101, 102))
		if err := w.Wait(); !errors.Is(err, audit.ErrLeaseLost) {
			t.Errorf("%v", err)
		}
		if len(dest.got) != 0 || len(l.outcomes) != 0 {
			t.Errorf("put %v, recorded %v", dest.got, l.outcomes)
		}
	})
}
