package lambdahost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/emf"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
)

const (
	// reserveMost is kept, at most, of an invocation's time for what follows the passes: the marks and the
	// lease with a ledger that takes a second to answer, the next invocation over a new connection,
	// the metrics, and the answer. If it did not suffice, Lambda would end the invocation before the
	// next one is asked for, and would repeat it only after a minute. A slow put and its record need
	// none of it: a pass puts nothing new in its last 10 seconds (pipeline's deadlineSlack).
	reserveMost = 5 * time.Second
	startMost   = 10 * time.Second // the end, at most, of the time for passes in which no further pass begins
	measureMost = time.Second      // for reading the values of the metrics

	// followFor is how long an invocation polls for an id. Then the id is left to the ledger's
	// list: one that Kong never records must not keep an environment busy.
	followFor = 3 * time.Second
)

// Outcomes of an invocation.
const (
	Complete  = "complete"  // the log was read to its end, and it has shown every announced id
	Nothing   = "nothing"   // every announced id had been delivered before, or was an own read
	Held      = "held"      // another relay has the lease, and was asked for a rerun
	Continued = "continued" // out of time: the function has invoked itself for the rest
	Left      = "left"      // left to the schedule: out of time too often, or the log has not shown every announced id yet
)

// Result is the answer of an invocation that did not fail.
type Result struct {
	Outcome   string         `json:"outcome"`
	Kind      audit.PassKind `json:"kind"`
	Chain     int            `json:"chain"` // how often the function had invoked itself for this
	Passes    int            `json:"passes"`
	Pages     int            `json:"pages"`
	Read      int            `json:"read"`
	New       int            `json:"new"`
	Delivered int            `json:"delivered"`
	Failed    int            `json:"failed"` // new entries that the last pass left without an outcome
	Dead      int            `json:"dead"`
	Deferred  int            `json:"deferred"`
	Waiting   int            `json:"waiting"`        // announced, and not in the log yet
	Left      string         `json:"left,omitempty"` // what the last pass did not get to
	Seconds   float64        `json:"seconds"`

	through int64          // of the last pass; see pipeline.Summary
	last    audit.PassKind // the kind of the last pass
}

func (r *Result) add(s pipeline.Summary) {
	r.Passes++
	r.Pages += s.Pages
	r.Read += s.Read
	r.New += s.New
	r.Delivered += s.Delivered
	r.Dead += s.Dead
	r.Deferred += s.Deferred
	r.Failed, r.Left, r.through, r.last = s.Failed, s.Left, s.Through, s.Kind
}

// work makes the passes that an event asks for, invokes the function again for what there is
// no time for, and writes metrics even if that fails.
func (h *host) work(ctx context.Context, log *slog.Logger, event task) (Result, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	begin := time.Now()
	r := Result{Kind: event.kind, Chain: event.chain, Outcome: Complete}
	h.oldestPending.Store(0) // an earlier invocation may have left a value
	err := h.passes(ctx, event, &r)
	r.Seconds = time.Since(begin).Seconds()
	h.measure(ctx, log, &r, err)
	if err != nil {
		return r, err
	}
	level := slog.LevelInfo
	if r.Outcome == Left && r.Chain >= maxChain {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "invocation done", "outcome", r.Outcome, "kind", string(r.Kind), "chain", r.Chain, "passes", r.Passes,
		"pages", r.Pages, "read", r.Read, "new", r.New, "delivered", r.Delivered, "failed", r.Failed, "dead", r.Dead,
		"deferred", r.Deferred, "waiting", r.Waiting, "left", r.Left, "seconds", r.Seconds)
	return r, nil
}

// passes makes the passes, and hands over the rest.
func (h *host) passes(ctx context.Context, event task, r *Result) error {
	now := time.Now()
	budget := time.Minute
	if deadline, ok := ctx.Deadline(); ok {
		budget = deadline.Sub(now)
	}
	work, begin := times(budget)
	timed, cancel := context.WithDeadlineCause(ctx, now.Add(work), pipeline.ErrOutOfTime)
	defer cancel()

	before, err := h.begin(timed)
	if err != nil {
		return err
	}
	s := h.schedule(r, budget)
	switch {
	case event.trigger != nil:
		fresh, err := h.runner.Announce(timed, event.trigger.RequestIDs, cmp.Or(event.trigger.SentAt, time.Now()))
		if err != nil {
			return h.app.ExplainLedger(err)
		}
		if len(fresh) == 0 && len(event.trigger.RequestIDs) > 0 {
			r.Outcome = Nothing
			return nil
		}
		s.Notify(now, fresh)
	case event.kind == audit.Reconcile:
		s.RequestReconcile(now, true) // EventBridge keeps the schedule
	default:
		s.RequestTail(now, now)
	}

	err = h.runner.RunUntilIdle(timed, now.Add(begin))
	r.Waiting, _ = s.Counts()
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		r.Outcome, r.Left = Held, ""
		return nil
	case errors.Is(err, pipeline.ErrOutOfTime):
		return h.handOver(ctx, r.last, before, r, err)
	case err != nil:
		return err
	}
	// There was no time for a pass that is still planned. If it is not due soon, it is left to
	// the schedule.
	if next := s.Planned(time.Now()); !next.IsZero() && time.Until(next) < announce.MissingAfter {
		return h.handOver(ctx, audit.Tail, before, r, pipeline.ErrOutOfTime)
	}
	if r.Waiting > 0 {
		r.Outcome = Left
	}
	return nil
}

// times returns, for the time that an invocation has, after how long its passes must end and
// after how long it begins no further one.
func times(budget time.Duration) (work, begin time.Duration) {
	work = budget - min(budget/8, reserveMost)
	return work, work - min(budget/4, startMost)
}

// schedule makes the scheduler and the runner of an invocation.
func (h *host) schedule(r *Result, budget time.Duration) *announce.Scheduler {
	// No debounce: an invocation has one trigger, so there are no others to gather.
	s := announce.New(announce.Options{Follow: followFor, TailNotBefore: h.tailNotBefore})
	h.scheduler = s
	// A reconcile waits for the lease: a tail of another invocation soon ends, and a rerun
	// request would bring no reconcile, but one more tail.
	h.runner = h.app.Runner(s, h.pipeline, runner.Observer{Ended: func(p audit.PassKind, sum pipeline.Summary, err error) {
		if errors.Is(err, audit.ErrLeaseHeld) || errors.Is(err, pipeline.ErrUnordered) {
			return
		}
		h.resultMu.Lock()
		defer h.resultMu.Unlock()
		r.add(sum)
		if p == audit.Tail && sum.Unordered() {
			// Such a tail reads the whole log, and may take a tenth of the time. The wall clock
			// (Round) counts, since the process is frozen between invocations.
			h.tailNotBefore = time.Now().Round(0).Add(announce.UnorderedPause(time.Duration(sum.Seconds * float64(time.Second))))
		}
	}}, min(h.app.Settings.LeaseWait, budget/4))
	return s
}

// begin makes sure that the ledger is there and belongs to this Kong.
func (h *host) begin(ctx context.Context) (audit.Marks, error) {
	a := h.app
	if !h.bound {
		if err := a.Bind(ctx); err != nil {
			return audit.Marks{}, err
		}
		h.bound = true
	}
	if err := a.Store.Begin(ctx); err != nil {
		return audit.Marks{}, a.ExplainLedger(err)
	}
	m, err := a.Store.Marks(ctx)
	return m, a.ExplainLedger(err)
}

const slowHint = "give the function more time, or find out why Kong, the ledger or the destination is so slow"

// handOver invokes the function for what this invocation had no time for. It fails if this
// invocation made no progress, since the next one would make none either. cause says why the
// passes ended.
func (h *host) handOver(ctx context.Context, rest audit.PassKind, before audit.Marks, r *Result, cause error) error {
	idle := func(what string) error {
		hint := audit.Hint(cause)
		return audit.WithHint(fmt.Errorf("%s: %w", what, cause), cmp.Or(hint, slowHint))
	}
	if r.Pages == 0 {
		return idle("nothing was read")
	}
	if r.Delivered+r.Dead+r.Deferred == 0 && r.Left != "" {
		after, err := h.app.Store.Marks(ctx)
		if err != nil {
			return h.app.ExplainLedger(err)
		}
		after.FailedSince = before.FailedSince // a mark of failure is not progress
		if reflect.DeepEqual(before, after) {
			return idle("nothing came of the time")
		}
	}
	if r.Chain >= maxChain {
		r.Outcome = Left
		return nil
	}
	r.Outcome = Continued
	if err := invokeSelf(ctx, &h.app.Settings, h.env.Getenv, selfInvocation{continuation{Kind: rest, Chain: r.Chain + 1}}); err != nil {
		return fmt.Errorf("going on with what is left: %w", err)
	}
	return nil
}

// measure writes those metrics of an invocation whose values can be read.
func (h *host) measure(ctx context.Context, log *slog.Logger, r *Result, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureMost)
	defer cancel()
	a, now := h.app, time.Now()
	failures := 0
	if failed != nil {
		failures = 1
	}
	metrics := []emf.Metric{emf.Count(emf.EntriesDelivered, r.Delivered), emf.Count(emf.PassFailures, failures)}
	if m, err := a.Store.Marks(ctx); err != nil {
		log.Warn("marks not read for the metrics", "err", err)
	} else if m.Completed > 0 {
		metrics = append(metrics, emf.Age(emf.LastCompletePassAge, now, time.Unix(m.Completed, 0)))
	}
	if _, missing, err := a.Announced(ctx, now); err != nil {
		log.Warn("announced ids not counted for the metrics", "err", err)
	} else {
		metrics = append(metrics, emf.Count(emf.AnnouncedMissing, len(missing)))
	}
	if u, err := a.Store.UndeliveredCounts(ctx); err != nil {
		log.Warn("undelivered entries not counted for the metrics", "err", err)
	} else {
		oldest := u.OldestDeferred
		if r.Failed > 0 {
			// The oldest entry that the pass knows and that has no outcome.
			known := app.UnixTime(cmp.Or(h.oldestPending.Load(), r.through))
			if !known.IsZero() && (oldest.IsZero() || known.Before(oldest)) {
				oldest = known
			}
		}
		metrics = append(metrics, emf.Count(emf.DeadLetters, u.Dead), emf.Count(emf.Deferred, u.Deferred), emf.Age(emf.OldestUndeliveredAge, now, oldest))
	}
	if a.Settings.Objects {
		metrics = append(metrics, h.changes.Take()...)
	}
	if err := emf.Write(h.env.Stdout, now, a.Settings.Source, metrics); err != nil {
		log.Warn("metrics not written", "err", err)
	}
}
