package pipeline

import (
	"context"
	"errors"
	"fmt"
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
	}
	total.Complete = total.Complete && err == nil
	total.Seconds = time.Since(begin).Seconds()
	return total, err
}

// rounds holds the lease for a pass and for those that others leave word for.
func (p *Pipeline) rounds(ctx context.Context, req Request, total *Summary) error {
	if _, err := p.opts.Ledger.Begin(ctx); err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	if req.DryRun {
		return p.pass(ctx, ctx, req, nil, total)
	}
	leased, h, err := acquire(ctx, p.opts.Lease, p.opts.LeaseTTL, req.Wait)
	if err != nil {
		return fmt.Errorf("getting the lease: %w", err)
	}
	defer h.end()
	for {
		err := p.pass(leased, ctx, req, h, total)
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
		word, releaseErr := p.opts.Lease.Release(release, h.token)
		if word && err != nil {
			// Whoever left word is not served now. What it noted is in the ledger.
			_, releaseErr = p.opts.Lease.Release(release, h.token)
		}
		cancel()
		if err != nil {
			return err
		}
		if releaseErr != nil && !errors.Is(releaseErr, audit.ErrLeaseLost) {
			p.log.Warn("lease not released, it will run out by itself", "err", releaseErr)
		}
		if !word {
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

	pos   position // of the walk, as of the last page that was handled
	batch []audit.Entry
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

	ps := &pass{p: p, req: req, held: h, marks: marks, saved: time.Now()}
	valid := func() error { return nil }
	if h != nil {
		valid = h.valid
	}
	ps.del = newDelivery(ctx, work, p, valid, ps.keep)
	ps.walk = &walk{p: p, order: p.order, until: req.Until}
	walkErr := ps.run(ps.del.ctx)
	if walkErr == nil {
		walkErr = ps.flush()
	}
	err = ps.del.group.Wait()
	if err == nil {
		err = walkErr
	} else if walkErr != nil && !errors.Is(walkErr, context.Canceled) && errors.Is(err, context.Canceled) {
		err = walkErr
	}
	var settings *audit.SettingsError
	if ctx.Err() != nil && err != nil && !errors.As(err, &settings) {
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
func (ps *pass) run(ctx context.Context) error {
	p, w := ps.p, ps.walk
	if ps.req.Kind == Reconcile || w.order == unknownOrder {
		own, err := w.probe(ctx)
		if err != nil {
			return err
		}
		p.own.add(own)
	}
	ps.pos = w.position()
	ps.setFloor()
	if !ps.req.DryRun && ps.req.Kind != Window {
		if err := ps.parkedFirst(ctx); err != nil {
			return err
		}
	}

	// The walk is one page ahead of what is done with pages.
	steps := make(chan step)
	walked := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(steps)
		walked <- w.run(ctx, func(s step) error {
			select {
			case steps <- s:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
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
		if err := ps.step(ctx, s); err != nil {
			return err
		}
	}
	return <-walked
}

// setFloor decides how far back the pass reads. It is fixed from here on.
func (ps *pass) setFloor() {
	p, w, m := ps.p, ps.walk, &ps.marks
	ps.started = w.began.Unix()
	switch ps.req.Kind {
	case Window:
		w.floor = ps.req.Since
	case Tail:
		w.floor = m.Cursor - tailBack
		if p.lastWide.IsZero() || time.Since(p.lastWide) >= wideEvery {
			w.floor, p.lastWide = m.Cursor-wideBack, time.Now()
		}
	case Reconcile:
		now := ps.started
		due := m.FullAt == 0 || m.ReconciledThrough == 0 || now < m.FullAt || now-m.FullAt >= fullEvery
		ps.full = ps.req.Full || due
		if !ps.full {
			w.floor = max(1, min(m.Cursor, m.ReconciledThrough)-reconcileBack)
		}
		if r := m.Resume; r != nil && !ps.req.Full && r.Order == w.order.String() && (r.Full || !ps.full) {
			ps.full, ps.started, ps.newest = r.Full, r.Started, r.Newest
			w.base, w.floor, w.start = r.Floor, r.Floor, r.Offset
			if w.order == oldestFirst {
				w.floor = max(r.Floor, r.From-tailBack)
			}
			p.log.Info("going on where a reconcile was cut", "order", r.Order, "from", r.From)
			break
		}
		w.base = w.floor
	}
	if ps.req.Kind != Reconcile {
		w.base = w.floor
	}
	w.floor, w.base = max(w.floor, p.opts.StartAt), max(w.base, p.opts.StartAt)
	ps.head = max(m.Cursor, w.began.Unix()-wideBack)
}

// step does with a page what is to be done, up to handing it over.
func (ps *pass) step(ctx context.Context, s step) error {
	ps.pos = s.pos
	if s.restart {
		ps.del.restart()
		return nil
	}
	ps.p.own.add(s.own)
	if f := ps.p.opts.Observer.Stage; f != nil {
		f("read", s.took)
	}
	if err := ps.page(ctx, s.entries); err != nil {
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
		if err := ps.tail(ctx); err != nil {
			return err
		}
	}
	if time.Since(ps.saved) >= saveEvery {
		ps.saved = time.Now()
		return ps.save(ctx, false)
	}
	return nil
}

// page sorts out what is new and hands it over in batches.
func (ps *pass) page(ctx context.Context, entries []audit.Entry) error {
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
	fresh := 0
	for i := range entries {
		if outcomes[i] != audit.New {
			continue
		}
		e := &entries[i]
		if p.opts.SkipOwnReads && p.own.has(e.ID) {
			own = append(own, d.record(e, audit.Own, nil))
			continue
		}
		fresh++
		if ps.req.DryRun || !d.claim(e.ID) {
			continue
		}
		if p.opts.Prepare != nil {
			p.opts.Prepare(e)
		}
		if err := ps.add(*e); err != nil {
			return err
		}
	}
	if len(own) > 0 && !ps.req.DryRun {
		if err := d.commit(own, nil); err != nil {
			return err
		}
	}
	d.count(func(s *Summary) { s.New += fresh; s.Own += len(own) })
	return nil
}

func (ps *pass) add(e audit.Entry) error {
	size := e.Size()
	if len(ps.batch) > 0 && (len(ps.batch) >= ps.p.opts.BatchEntries || ps.bytes+size > ps.p.opts.BatchBytes) {
		if err := ps.flush(); err != nil {
			return err
		}
	}
	if len(ps.batch) == 0 {
		ps.batch = make([]audit.Entry, 0, ps.p.opts.BatchEntries)
		ps.piece = ps.del.place(e.Timestamp)
	}
	ps.batch = append(ps.batch, e)
	ps.bytes += size
	return nil
}

// flush hands over the batch that is being filled.
func (ps *pass) flush() error {
	if len(ps.batch) == 0 {
		return nil
	}
	batch, piece := ps.batch, ps.piece
	ps.batch, ps.piece, ps.bytes = nil, nil, 0
	return ps.del.put(batch, piece)
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
func (ps *pass) tail(ctx context.Context) error {
	w := &walk{p: ps.p, order: ps.pos.order, floor: max(ps.head-tailBack, ps.p.opts.StartAt)}
	w.base = w.floor
	newest := int64(0)
	err := w.run(ctx, func(s step) error {
		ps.p.own.add(s.own)
		for i := range s.entries {
			newest = max(newest, s.entries[i].Timestamp)
		}
		return ps.page(ctx, s.entries)
	})
	ps.del.count(func(s *Summary) { s.Pages += w.pages })
	if err != nil {
		return err
	}
	ps.head = max(ps.head, min(newest, w.began.Unix()))
	return ps.flush()
}

// save writes how far the pass has come.
func (ps *pass) save(ctx context.Context, complete bool) error {
	m, now := ps.marks, ps.walk.began.Unix()
	switch {
	case complete && ps.pos.order == oldestFirst:
		m.Cursor = max(m.Cursor, min(ps.pos.last, now))
	case complete:
		// Rows that came after the start may have landed on pages already read.
		m.Cursor = max(m.Cursor, min(max(ps.newest, ps.pos.newest), ps.started))
	case ps.pos.order == oldestFirst:
		m.Cursor = max(m.Cursor, min(ps.del.safe(), now))
	}
	if complete {
		m.Completed = now
		if m.Cursor == 0 { // an empty log
			m.Cursor = now - wideBack
		}
	}
	if ps.req.Kind == Reconcile {
		m.Resume = nil
		if complete {
			m.ReconciledThrough = max(m.ReconciledThrough, ps.started)
			if ps.full {
				m.FullAt = ps.started
			}
		} else if r := ps.resume(); r != nil {
			m.Resume = r
		} else {
			m.Resume = ps.marks.Resume
		}
	}
	if m == ps.marks {
		return nil
	}
	if err := ps.p.opts.Book.SetMarks(ctx, ps.held.token, m); err != nil {
		return fmt.Errorf("moving marks: %w", err)
	}
	ps.marks = m
	return nil
}

// resume says where this reconcile could go on, or nil if it has not come anywhere.
func (ps *pass) resume() *audit.Resume {
	r := &audit.Resume{
		Order: ps.pos.order.String(), Started: ps.started, Floor: ps.walk.base, Full: ps.full,
		Newest: max(ps.newest, ps.pos.newest),
	}
	if ps.pos.order == oldestFirst {
		if r.From = ps.del.safe(); r.From <= 0 {
			return nil
		}
		return r
	}
	if r.Offset = ps.del.safeOffset(); r.Offset == "" {
		return nil
	}
	return r
}

// finish saves marks for the last time.
func (ps *pass) finish(ctx context.Context, complete bool) error {
	if ps.req.DryRun || ps.req.Kind == Window || ps.walk.began.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	if err := ps.rememberOwn(ctx); err != nil {
		ps.p.log.Warn("own reads not noted, they will be delivered", "err", err)
	}
	return ps.save(ctx, complete)
}

// rememberOwn notes this pass's reads in the ledger, so that a later process
// knows them. When Kong writes their rows is not known to the second, so near
// midnight they go into both days.
func (ps *pass) rememberOwn(ctx context.Context) error {
	o := &ps.p.own
	if !ps.p.opts.SkipOwnReads || len(o.queue) == 0 {
		return nil
	}
	const day, near = 24 * 60 * 60, 5 * 60
	now := time.Now().Unix()
	if !ps.walk.began.IsZero() {
		now = ps.walk.began.Unix()
	}
	var records []audit.Record
	for _, id := range o.queue[min(o.noted, len(o.queue)):] {
		for _, t := range []int64{now - near, now + near} {
			r := audit.Record{ID: id, Timestamp: t, Keep: ps.p.opts.RecordTTL, Outcome: audit.Own}
			if n := len(records); n > 0 && records[n-1].ID == id && records[n-1].Timestamp/day == t/day {
				continue
			}
			records = append(records, r)
		}
	}
	if err := ps.p.opts.Ledger.Record(ctx, records); err != nil {
		return err
	}
	o.noted = len(o.queue)
	return nil
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
	total.Kind, total.Order, total.Left = s.Kind, s.Order, s.Left
	total.Full = total.Full || s.Full
}
