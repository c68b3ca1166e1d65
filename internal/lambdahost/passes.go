package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	reserveMost = 2 * time.Second  // kept of an invocation's time for metrics and the next invocation
	startMost   = 10 * time.Second // before the end of its time no further tail is begun
	measureMost = time.Second      // for reading what the metrics show
)

// What became of an invocation.
const (
	Complete  = "complete"  // read to the end, and everything that was announced has been seen or has been waited for
	Nothing   = "nothing"   // everything that was announced had been delivered before
	Held      = "held"      // another relay makes the pass, and was left word
	Continued = "continued" // out of time: the function has invoked itself for the rest
	Left      = "left"      // out of time: left to the schedule
)

// Result is what an invocation that did not fail answers.
type Result struct {
	Outcome   string        `json:"outcome"`
	Kind      pipeline.Kind `json:"kind"`
	Chain     int           `json:"chain"` // how often the function had invoked itself for this
	Passes    int           `json:"passes"`
	Pages     int           `json:"pages"`
	Read      int           `json:"read"`
	New       int           `json:"new"`
	Delivered int           `json:"delivered"`
	Failed    int           `json:"failed"` // by the last pass: new, and without an outcome
	Dead      int           `json:"dead"`
	Deferred  int           `json:"deferred"`
	Waiting   int           `json:"waiting"`        // announced, and not in the log yet
	Left      string        `json:"left,omitempty"` // what the last pass did not get to
	Seconds   float64       `json:"seconds"`

	through int64 // of the last pass, see pipeline.Summary
}

func (r *Result) add(s pipeline.Summary) {
	r.Passes++
	r.Pages += s.Pages
	r.Read += s.Read
	r.New += s.New
	r.Delivered += s.Delivered
	r.Dead += s.Dead
	r.Deferred += s.Deferred
	r.Failed, r.Left, r.through = s.Failed, s.Left, s.Through
}

// work makes the passes that an event asks for, goes on with what it has no time
// for by invoking the function again, and writes metrics in any case.
func (h *host) work(ctx context.Context, log *slog.Logger, event task) (Result, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	begin := time.Now()
	r := Result{Kind: event.kind, Chain: event.chain, Outcome: Complete}
	h.unresolved.take() // what an earlier invocation left there
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
	end := now.Add(budget - min(budget/8, reserveMost))
	timed, cancel := context.WithDeadline(ctx, end)
	defer cancel()

	before, err := h.begin(timed)
	if err != nil {
		return err
	}
	h.watch.Bell.Forget()
	if event.trigger != nil {
		ids, err := h.announce(timed, event.trigger)
		if err != nil {
			return err
		}
		if len(ids) == 0 && len(event.trigger.RequestIDs) > 0 {
			r.Outcome = Nothing
			return nil
		}
		h.watch.Bell.Ring(ids, now)
	}
	h.watch.LoadAnnounced(timed)

	rest, err := h.rounds(timed, event, end.Add(-min(budget/4, startMost)), budget, r)
	h.watch.Sweep(timed)
	r.Waiting, _ = h.watch.Bell.Counts()
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		r.Outcome, r.Left = Held, ""
		return nil
	case err != nil:
		return err
	case rest == "":
		if r.Waiting > 0 {
			r.Outcome = Left
		}
		return nil
	}
	return h.handOver(ctx, rest, before, r)
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
	if _, err := a.Store.Begin(ctx); err != nil {
		return audit.Marks{}, a.ExplainLedger(err)
	}
	m, err := a.Store.Marks(ctx)
	return m, a.ExplainLedger(err)
}

// announce notes the ids of a trigger, and returns those that are not known to be delivered.
func (h *host) announce(ctx context.Context, t *trigger.Body) ([]string, error) {
	at := t.SentAt
	if at.IsZero() {
		at = time.Now()
	}
	fresh, err := h.watch.Announce(ctx, t.RequestIDs, at)
	return fresh, h.app.ExplainLedger(err)
}

// rounds makes the pass that was asked for, and tails until what was announced
// has shown up. It begins none after last, and returns the kind of pass that the
// rest needs, or "" if there is none.
func (h *host) rounds(ctx context.Context, event task, last time.Time, budget time.Duration, r *Result) (rest pipeline.Kind, err error) {
	if event.kind == pipeline.Tail && h.watch.Bell.Until() < 0 {
		h.watch.Bell.Ring(nil, time.Now()) // whoever goes on with a tail looks at once
	}
	for kind := event.kind; ; kind = pipeline.Tail {
		if kind == pipeline.Tail {
			if more, err := h.await(ctx, last); err != nil || !more {
				if waiting, _ := h.watch.Bell.Counts(); waiting > 0 && time.Until(h.scanned) < app.MissingAfter {
					rest = pipeline.Tail
				}
				return rest, err
			}
		}
		req := pipeline.Request{Kind: kind, TailWanted: h.watch.Bell.Wait, Word: h.watch.LoadAnnounced}
		if kind == pipeline.Reconcile {
			// A tail of another invocation is soon done, and would only be left word for a tail.
			req.Wait = min(h.app.Settings.LeaseWait, budget/4)
		}
		begin := time.Now()
		sum, err := h.pipeline.Run(ctx, req)
		r.add(sum)
		if sum.Word {
			h.watch.Bell.Ring(nil, time.Now()) // for the relay that left it
		}
		if sum.Order == pipeline.Unordered && kind == pipeline.Tail {
			// Each look reads the whole log: at most a tenth of the time goes into that.
			h.scanned = time.Now().Round(0).Add(9 * time.Since(begin)) // by the wall: the process is frozen in between
		}
		if errors.Is(err, pipeline.ErrOutOfTime) {
			return sum.Kind, nil
		}
		if err != nil {
			return "", err
		}
		h.watch.Sweep(ctx)
	}
}

// await waits until the bell asks for a pull. It says no if there is nothing to
// wait for, or no time.
func (h *host) await(ctx context.Context, last time.Time) (bool, error) {
	for {
		d := h.watch.Bell.Until()
		if d < 0 {
			return false, nil
		}
		if scan := time.Until(h.scanned); scan > d {
			if d = scan; d >= app.MissingAfter {
				return false, nil // the schedule is as good
			}
		}
		if time.Now().Add(d).After(last) {
			return false, nil
		}
		timer := time.NewTimer(d)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, context.Cause(ctx)
		case <-timer.C:
		}
		if h.watch.Bell.Due() {
			return true, nil
		}
	}
}

// handOver invokes the function for what this invocation had no time for, unless
// nothing has come of its time: then the next one would fare no better.
func (h *host) handOver(ctx context.Context, rest pipeline.Kind, before audit.Marks, r *Result) error {
	if r.Delivered+r.Dead+r.Deferred == 0 && r.Left != "" {
		after, err := h.app.Store.Marks(ctx)
		if err != nil {
			return h.app.ExplainLedger(err)
		}
		if reflect.DeepEqual(before, after) {
			return audit.WithHint(fmt.Errorf("%w, and nothing came of it", pipeline.ErrOutOfTime),
				"give the function more time, or find out why Kong, the ledger or the destination is so slow")
		}
	}
	if r.Chain >= maxChain {
		r.Outcome = Left
		return nil
	}
	r.Outcome = Continued
	if err := h.self.invoke(ctx, selfInvocation{continuation{Kind: rest, Chain: r.Chain + 1}}); err != nil {
		return fmt.Errorf("going on with what is left: %w", err)
	}
	return nil
}

// measure writes the metrics of an invocation, those that can be had.
func (h *host) measure(ctx context.Context, log *slog.Logger, r *Result, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureMost)
	defer cancel()
	a, now := h.app, time.Now()
	failures := 0.0
	if failed != nil {
		failures = 1
	}
	metrics := []emfMetric{{"EntriesDelivered", "Count", float64(r.Delivered)}, {"PassFailures", "Count", failures}}
	if m, err := a.Store.Marks(ctx); err != nil {
		log.Warn("marks not read for the metrics", "err", err)
	} else if m.Completed > 0 {
		metrics = append(metrics, emfMetric{"LastCompletePassAge", "Seconds", age(now, time.Unix(m.Completed, 0))})
	}
	dead, deferred, err := a.Store.UndeliveredCounts(ctx)
	_, oldest, oldestErr := a.Store.OldestUndelivered(ctx)
	if err = errors.Join(err, oldestErr); err != nil {
		log.Warn("undelivered entries not counted for the metrics", "err", err)
	} else {
		undelivered := age(now, oldest)
		if r.Failed > 0 {
			// Known to this pass, and without an outcome.
			t := h.unresolved.take()
			if t == 0 {
				t = r.through
			}
			if t > 0 {
				undelivered = max(undelivered, age(now, time.Unix(t, 0)))
			}
		}
		metrics = append(metrics, emfMetric{"DeadLetters", "Count", float64(dead)}, emfMetric{"Deferred", "Count", float64(deferred)},
			emfMetric{"OldestUndeliveredAge", "Seconds", undelivered})
	}
	if err := writeEMF(h.env.Stdout, now, a.Settings.Source, metrics); err != nil {
		log.Warn("metrics not written", "err", err)
	}
}

// age is the seconds since then; 0 for never.
func age(now, then time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Round(time.Millisecond).Seconds())
}
