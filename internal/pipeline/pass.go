package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	tailBack      = 5                // seconds that a tail looks back: rows are written after the response
	wideBack      = 5 * 60           // seconds that one tail a minute looks back: clocks of control planes differ
	wideEvery     = time.Minute      // how often
	reconcileBack = 25 * 60 * 60     // seconds that a reconcile looks back
	fullEvery     = 24 * 60 * 60     // seconds after which a reconcile reads everything
	saveEvery     = time.Second      // how often marks move during a pass
	roundsFor     = 30 * time.Second // how long a run goes round again for others' sake
	releaseWithin = 3 * time.Second  // for giving up the lease once the pass is told to stop
	deadlineSlack = 10 * time.Second // most that is kept back of a deadline, for batches in flight
)

// ErrOutOfTime ends a pass that stopped starting batches because its context's
// deadline was near. Summary.Left says what it did not get to; the next
// reconcile goes on there.
var ErrOutOfTime = errors.New("out of time before the pass was complete")

// Run makes a pass, and further ones as long as somebody leaves word meanwhile.
// The summary is valid whatever the error.
//
// It fails with audit.ErrLeaseHeld if another process is making a pass,
// ErrOutOfTime near the context's deadline, ErrUnavailable if the destination
// takes nothing, and *audit.SettingsError where a person has to act.
func (p *Pipeline) Run(ctx context.Context, req Request) (Summary, error) {
	p.passing.Lock()
	defer p.passing.Unlock()
	begin := time.Now()
	total := Summary{Kind: req.Kind, Full: req.Full, Complete: true}
	var err error
	for replaced := 0; ; replaced++ {
		err = p.rounds(ctx, req, &total)
		if !errors.Is(err, audit.ErrLedgerReplaced) || replaced == 2 {
			break
		}
		p.log.Warn("ledger was emptied or replaced under the pass, starting over with a full read", "err", err)
		p.own.forgotten()
		total.Complete, total.Failed = true, 0 // what was not done is done now
	}
	total.Complete = total.Complete && err == nil
	total.Seconds = time.Since(begin).Seconds()
	return total, err
}

// rounds holds the lease for a pass and for those that others leave word for.
func (p *Pipeline) rounds(ctx context.Context, req Request, total *Summary) error {
	if req.DryRun {
		return p.pass(ctx, ctx, req, nil, total)
	}
	fresh, err := p.opts.Ledger.Begin(ctx)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	if fresh {
		p.own.forgotten()
	}
	leased, h, err := acquire(ctx, p.opts.Lease, p.opts.LeaseTTL, req.Wait)
	if err != nil {
		return fmt.Errorf("getting the lease: %w", err)
	}
	defer h.end()
	begin := time.Now()
	for {
		err := p.pass(leased, ctx, req, h, total)
		if errors.Is(err, audit.ErrLeaseLost) {
			// A ledger that was emptied has lost the lease as well.
			if _, marksErr := p.opts.Book.Marks(ctx); errors.Is(marksErr, audit.ErrLedgerReplaced) {
				err = marksErr
			}
		}
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
		word, releaseErr := p.opts.Lease.Release(release, h.token)
		stop := err != nil || time.Since(begin) > roundsFor
		if word && stop {
			// Whoever left word is not served here. What it noted is in the ledger.
			_, releaseErr = p.opts.Lease.Release(release, h.token)
		}
		cancel()
		if err != nil {
			return err
		}
		if releaseErr != nil && !errors.Is(releaseErr, audit.ErrLeaseLost) {
			p.log.Warn("lease not released, it will run out by itself", "err", releaseErr)
		}
		if !word || stop {
			total.Word = word
			return nil
		}
		if req.Word != nil {
			req.Word(leased)
		}
		req = Request{Kind: Tail, Word: req.Word}
	}
}

// pass is one walk of the log.
type pass struct {
	p     *Pipeline
	req   Request
	walk  *walk
	del   *delivery
	held  *held
	marks audit.Marks

	full    bool
	started int64 // by Kong's clock
	newest  int64 // seen at the start, in orders other than oldest first
	head    int64 // newest second that a tail within the reconcile has read
	saved   time.Time
	before  audit.Marks // as the pass found them
	misled  bool        // marks that it began with turned out to be ahead of Kong's clock
	parked  parkedTries

	pos position // of the walk, as of the last page that was handled
	// The batch that is being filled. As a rule all entries of a page are new, and
	// then it is a part of the page itself: entries from start on.
	batch []audit.Entry
	from  *audit.Entry // first entry of that page; nil if the batch has memory of its own
	start int
	piece *piece
	bytes int
}

func (p *Pipeline) pass(ctx, parent context.Context, req Request, h *held, total *Summary) error {
	marks, err := p.opts.Book.Marks(ctx)
	if err != nil {
		return fmt.Errorf("reading marks: %w", err)
	}
	if req.Kind == Tail && marks.Cursor == 0 {
		req.Kind = Reconcile // nothing to go on from
	}
	if deadline, ok := parent.Deadline(); ok {
		slack := min(time.Until(deadline)/4, deadlineSlack)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-slack), ErrOutOfTime)
		defer cancel()
	}
	work, cancel := p.workContext(parent)
	defer cancel()

	ps := &pass{p: p, req: req, held: h, marks: marks, before: marks, saved: time.Now()}
	valid := func() error { return nil }
	if h != nil {
		valid = h.valid
	}
	var delivering context.Context
	ps.del, delivering = newDelivery(ctx, p, valid, ps.keep)
	ps.walk = &walk{p: p, order: p.order, until: req.Until}
	walkErr := ps.run(delivering, work)
	// Also what was read before the walk failed. Told to stop, flush says so.
	if flushErr := ps.flush(delivering, work); walkErr == nil {
		walkErr = flushErr
	}
	err = ps.del.group.Wait()
	if err == nil {
		err = walkErr
	} else if walkErr != nil && !errors.Is(walkErr, context.Canceled) && errors.Is(err, context.Canceled) {
		err = walkErr
	}
	if err == nil {
		err = ps.judge(work)
	}
	var settings *audit.SettingsError
	if ctx.Err() != nil && err != nil && !errors.As(err, &settings) && !errors.Is(err, audit.ErrLedgerReplaced) {
		err = context.Cause(ctx) // why it ended says more than what broke because of that
	}
	saveErr := ps.finish(context.WithoutCancel(ctx), err == nil)
	ps.total(total, err == nil)
	if err == nil {
		err = saveErr
	} else if saveErr != nil && !errors.Is(saveErr, audit.ErrLeaseLost) {
		p.log.Warn("marks not saved, the next pass reads more again", "err", saveErr)
	}
	return err
}

// workContext is for batches in flight: it outlives the caller's context by the
// grace, but not the caller's deadline. Losing the lease does not end it: what
// was accepted must still be recorded.
func (p *Pipeline) workContext(parent context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(parent))
	grace := p.opts.Grace
	stop := context.AfterFunc(parent, func() {
		if errors.Is(parent.Err(), context.DeadlineExceeded) {
			cancel()
			return
		}
		t := time.AfterFunc(grace, cancel)
		context.AfterFunc(work, func() { t.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// keep is how long Kong still has the entry.
func (ps *pass) keep(e *audit.Entry) time.Duration {
	if e.TTL >= 0 {
		return time.Duration(min(e.TTL, 100*365*24*3600)) * time.Second
	}
	age := time.Duration(max(0, min(ps.walk.began.Unix()-e.Timestamp, 100*365*24*3600))) * time.Second
	return max(0, ps.p.opts.RecordTTL-age)
}

// run reads from the floor to the end and hands over what is new.
func (ps *pass) run(ctx, work context.Context) error {
	p, w := ps.p, ps.walk
	if ps.req.Kind == Reconcile || w.order == unknownOrder {
		if err := w.probe(ctx); err != nil {
			return err
		}
	}
	ps.pos = w.position()
	ps.setFloor()
	if !ps.req.DryRun && ps.req.Kind != Window {
		if err := ps.parkedFirst(ctx, work); err != nil {
			return err
		}
	}

	// The walk is one page ahead of what is done with pages.
	steps := make(chan step)
	walked := make(chan error, 1)
	walking, cancel := context.WithCancel(ctx)
	go func() {
		defer close(steps)
		walked <- w.run(walking, func(s step) error {
			select {
			case steps <- s:
				return nil
			case <-walking.Done():
				return context.Cause(walking)
			}
		})
	}()
	defer func() {
		cancel()
		for range steps { // until the walk has ended
		}
		ps.pos = w.position()
		p.order = w.order
	}()
	for s := range steps {
		if err := ps.step(ctx, work, s); err != nil {
			return err
		}
	}
	return <-walked
}

// step does with a page what is to be done, up to handing it over.
func (ps *pass) step(ctx, work context.Context, s step) error {
	ps.pos = s.pos
	if s.restart {
		ps.del.restart()
		return ps.rewind(ctx)
	}
	if f := ps.p.opts.Observer.Stage; f != nil {
		f("read", s.took)
	}
	if err := ps.page(ctx, work, s.entries); err != nil {
		return err
	}
	ps.del.read(s.through, s.offset)
	if f := ps.p.opts.Observer.Progress; f != nil {
		f(ps.summary())
	}
	if ps.req.DryRun || ps.req.Kind == Window {
		return nil
	}
	if ps.req.Kind == Reconcile && ps.tailWanted(ctx) {
		if err := ps.tail(ctx, work); err != nil {
			return err
		}
	}
	if time.Since(ps.saved) >= saveEvery {
		ps.saved = time.Now()
		err := ps.save(ctx, false)
		if errors.Is(err, audit.ErrLeaseLost) || errors.Is(err, audit.ErrLedgerReplaced) {
			return err
		}
		if err != nil {
			ps.p.log.Warn("marks not saved, trying again with the next pages", "err", err)
		}
	}
	return nil
}

// page sorts out what is new and hands it over in batches.
func (ps *pass) page(ctx, work context.Context, entries []audit.Entry) error {
	p, d := ps.p, ps.del
	if len(entries) == 0 {
		return nil
	}
	if f := p.opts.Observer.Seen; f != nil {
		f(entries)
	}
	ahead, now := 0, ps.walk.began.Unix()
	for i := range entries {
		if entries[i].Timestamp > now+1 {
			ahead++
		}
	}
	read := len(entries)
	entries = d.unclaimed(entries)
	begin := time.Now()
	outcomes, err := p.opts.Ledger.Lookup(ctx, entries)
	p.opts.Observer.stage("lookup", begin)
	if err != nil {
		return fmt.Errorf("looking up %d entries: %w", len(entries), err)
	}
	d.count(func(s *Summary) { s.Read += read; s.Ahead += ahead })
	var own []audit.Record
	fresh, few := 0, mostlyKnown(entries, outcomes)
	for i := range entries {
		if outcomes[i] != audit.New {
			continue
		}
		e := &entries[i]
		if p.opts.SkipOwnReads && p.own.has(e.ID) {
			own = append(own, d.record(e, audit.Own, nil))
			continue
		}
		if !ps.req.DryRun && !d.claim(e.ID) {
			continue // twice on this page
		}
		fresh++
		if ps.req.DryRun {
			continue
		}
		if few {
			detach(e)
		}
		if p.opts.Prepare != nil {
			p.opts.Prepare(e)
		}
		if err := ps.add(ctx, work, entries, i); err != nil {
			return err
		}
	}
	if len(own) > 0 && !ps.req.DryRun {
		if err := d.commit(work, own, nil); err != nil {
			return err
		}
	}
	d.count(func(s *Summary) { s.New += fresh; s.Own += len(own) })
	return nil
}

// mostlyKnown tells whether the new entries are the smaller part of a page. Such
// entries are copied, or a batch that gathers them would keep all their pages in memory.
func mostlyKnown(entries []audit.Entry, outcomes []audit.Outcome) bool {
	all, fresh := 0, 0
	for i := range entries {
		n := entries[i].Size()
		all += n
		if outcomes[i] == audit.New {
			fresh += n
		}
	}
	return fresh < all/2
}

// detach gives an entry memory of its own.
func detach(e *audit.Entry) {
	for _, s := range []*string{
		&e.ID, &e.RequestID, &e.ClientIP, &e.Method, &e.Path, &e.Workspace, &e.Payload, &e.RemovedFromPayload,
		&e.Signature, &e.RBACUserID, &e.RBACUserName, &e.RequestSource, &e.Unknown, &e.KongVersion,
	} {
		*s = strings.Clone(*s)
	}
}

// add puts an entry of a page, which must not change any more, into the batch.
func (ps *pass) add(ctx, work context.Context, page []audit.Entry, i int) error {
	size := page[i].Size()
	if len(ps.batch) > 0 && (len(ps.batch) >= ps.p.opts.BatchEntries || ps.bytes+size > ps.p.opts.BatchBytes) {
		if err := ps.flush(ctx, work); err != nil {
			return err
		}
	}
	switch {
	case len(ps.batch) == 0:
		ps.piece = ps.del.place(page[i].Timestamp)
		ps.from, ps.start = &page[0], i
		ps.batch = page[i : i+1 : i+1]
	case ps.from == &page[0] && ps.start+len(ps.batch) == i:
		ps.batch = page[ps.start : i+1 : i+1]
	default:
		ps.from = nil
		ps.batch = append(ps.batch, page[i])
	}
	ps.bytes += size
	return nil
}

// flush hands over the batch that is being filled.
func (ps *pass) flush(ctx, work context.Context) error {
	if len(ps.batch) == 0 {
		return nil
	}
	batch, piece := ps.batch, ps.piece
	ps.batch, ps.piece, ps.bytes = nil, nil, 0
	return ps.del.put(ctx, work, batch, piece)
}

// tailWanted asks this process and the ledger whether there is something to look for at once.
func (ps *pass) tailWanted(ctx context.Context) bool {
	if ps.pos.order == noOrder || ps.held == nil {
		return false
	}
	wanted := ps.req.TailWanted != nil && ps.req.TailWanted()
	if word, err := ps.held.lease.Word(ctx, ps.held.token); err == nil && word {
		if ps.req.Word != nil {
			ps.req.Word(ctx)
		}
		wanted = true
	}
	return wanted
}

// tail reads the newest rows in the middle of a reconcile. It moves no mark: what
// lies between is still to be read.
func (ps *pass) tail(ctx, work context.Context) error {
	w := &walk{p: ps.p, order: ps.pos.order, floor: max(ps.head-tailBack, ps.p.opts.StartAt)}
	w.base = w.floor
	newest := int64(0)
	err := w.run(ctx, func(s step) error {
		for i := range s.entries {
			newest = max(newest, s.entries[i].Timestamp)
		}
		return ps.page(ctx, work, s.entries)
	})
	ps.del.count(func(s *Summary) { s.Pages += w.pages })
	if err != nil {
		return err
	}
	ps.head = max(ps.head, min(newest, w.began.Unix()))
	return ps.flush(ctx, work)
}

func (ps *pass) summary() Summary {
	d := ps.del
	d.mu.Lock()
	s := d.sum
	d.mu.Unlock()
	s.Kind, s.Full, s.Order = ps.req.Kind, ps.full, ps.pos.order.String()
	s.Pages += ps.pos.pages
	s.Through = ps.marks.Cursor
	return s
}

// total adds this pass to the run's summary.
func (ps *pass) total(total *Summary, complete bool) {
	s := ps.summary()
	s.Complete = complete
	s.Failed = max(0, s.New-s.Delivered-s.Dead-s.Parked)
	if ps.req.DryRun {
		s.Failed = 0
	}
	if !complete && !ps.walk.began.IsZero() {
		s.Left = "everything that was not read yet"
		if safe := ps.del.safe(); safe > 0 {
			s.Left = "entries after " + time.Unix(safe, 0).UTC().Format(time.RFC3339)
		}
	}
	total.add(s)
	total.Order, total.Left = s.Order, s.Left
	if s.Kind == Reconcile && total.Kind == Tail {
		total.Kind = Reconcile // what a tail without marks becomes
	}
	total.Full = total.Full || s.Full
}
