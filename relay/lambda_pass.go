package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

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
	ranComplete  = "complete"  // read to the end, and everything that was announced has been seen or has been waited for
	ranNothing   = "nothing"   // everything that was announced had been delivered before
	ranHeld      = "held"      // another relay makes the pass, and was left word
	ranContinued = "continued" // out of time: the function has invoked itself for the rest
	ranLeft      = "left"      // out of time: left to the schedule
)

// lambdaResult is what an invocation that did not fail answers.
type lambdaResult struct {
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

func (r *lambdaResult) add(s pipeline.Summary) {
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
func (h *lambdaHost) work(ctx context.Context, log *slog.Logger, event lambdaEvent) (lambdaResult, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	begin := time.Now()
	r := lambdaResult{Kind: event.kind, Chain: event.chain, Outcome: ranComplete}
	h.sink.unresolved() // what an earlier invocation left there
	err := h.passes(ctx, event, &r)
	r.Seconds = time.Since(begin).Seconds()
	h.measure(ctx, log, &r, err)
	if err != nil {
		return r, err
	}
	level := slog.LevelInfo
	if r.Outcome == ranLeft && r.Chain >= maxChain {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "invocation done", "outcome", r.Outcome, "kind", string(r.Kind), "chain", r.Chain, "passes", r.Passes,
		"pages", r.Pages, "read", r.Read, "new", r.New, "delivered", r.Delivered, "failed", r.Failed, "dead", r.Dead,
		"deferred", r.Deferred, "waiting", r.Waiting, "left", r.Left, "seconds", r.Seconds)
	return r, nil
}

// passes makes the passes, and hands over the rest.
func (h *lambdaHost) passes(ctx context.Context, event lambdaEvent, r *lambdaResult) error {
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
	h.srv.bell.forget()
	if event.trigger != nil {
		ids, err := h.announce(timed, event.trigger)
		if err != nil {
			return err
		}
		if len(ids) == 0 && len(event.trigger.RequestIDs) > 0 {
			r.Outcome = ranNothing
			return nil
		}
		h.srv.bell.ring(ids, now)
	}
	h.srv.loadAnnounced(timed)

	rest, err := h.rounds(timed, event, end.Add(-min(budget/4, startMost)), budget, r)
	h.srv.sweep(timed)
	r.Waiting, _ = h.srv.bell.counts()
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		r.Outcome, r.Left = ranHeld, ""
		return nil
	case err != nil:
		return err
	case rest == "":
		if r.Waiting > 0 {
			r.Outcome = ranLeft
		}
		return nil
	}
	return h.handOver(ctx, rest, before, r)
}

// begin makes sure that the ledger is there and belongs to this Kong.
func (h *lambdaHost) begin(ctx context.Context) (audit.Marks, error) {
	a := h.srv.app
	if !h.bound {
		if err := a.bind(ctx); err != nil {
			return audit.Marks{}, err
		}
		h.bound = true
	}
	if _, err := a.store.Begin(ctx); err != nil {
		return audit.Marks{}, a.reachable(err)
	}
	m, err := a.store.Marks(ctx)
	return m, a.reachable(err)
}

// announce notes the ids of a trigger, and returns those that are not known to be delivered.
func (h *lambdaHost) announce(ctx context.Context, t *trigger.Body) ([]string, error) {
	at := t.SentAt
	if at.IsZero() {
		at = time.Now()
	}
	fresh, err := h.srv.announce(ctx, t.RequestIDs, at)
	return fresh, h.srv.app.reachable(err)
}

// rounds makes the pass that was asked for, and tails until what was announced
// has shown up. It begins none after last, and returns the kind of pass that the
// rest needs, or "" if there is none.
func (h *lambdaHost) rounds(ctx context.Context, event lambdaEvent, last time.Time, budget time.Duration, r *lambdaResult) (rest pipeline.Kind, err error) {
	srv := h.srv
	if event.kind == pipeline.Tail && srv.bell.until() < 0 {
		srv.bell.ring(nil, time.Now()) // whoever goes on with a tail looks at once
	}
	for kind := event.kind; ; kind = pipeline.Tail {
		if kind == pipeline.Tail {
			if more, err := h.await(ctx, last); err != nil || !more {
				if waiting, _ := srv.bell.counts(); waiting > 0 && time.Until(h.scanned) < missingAfter {
					rest = pipeline.Tail
				}
				return rest, err
			}
		}
		req := pipeline.Request{Kind: kind, TailWanted: srv.bell.wait, Word: srv.loadAnnounced}
		if kind == pipeline.Reconcile {
			// A tail of another invocation is soon done, and would only be left word for a tail.
			req.Wait = min(srv.app.settings.LeaseWait, budget/4)
		}
		begin := time.Now()
		sum, err := srv.passes.Run(ctx, req)
		r.add(sum)
		if sum.Word {
			srv.bell.ring(nil, time.Now()) // for the relay that left it
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
		srv.sweep(ctx)
	}
}

// await waits until the bell asks for a pull. It says no if there is nothing to
// wait for, or no time.
func (h *lambdaHost) await(ctx context.Context, last time.Time) (bool, error) {
	for {
		d := h.srv.bell.until()
		if d < 0 {
			return false, nil
		}
		if scan := time.Until(h.scanned); scan > d {
			if d = scan; d >= missingAfter {
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
		if h.srv.bell.due() {
			return true, nil
		}
	}
}

// handOver invokes the function for what this invocation had no time for, unless
// nothing has come of its time: then the next one would fare no better.
func (h *lambdaHost) handOver(ctx context.Context, rest pipeline.Kind, before audit.Marks, r *lambdaResult) error {
	if r.Delivered+r.Dead+r.Deferred == 0 && r.Left != "" {
		after, err := h.srv.app.store.Marks(ctx)
		if err != nil {
			return h.srv.app.reachable(err)
		}
		if reflect.DeepEqual(before, after) {
			return audit.WithHint(fmt.Errorf("%w, and nothing came of it", pipeline.ErrOutOfTime),
				"give the function more time, or find out why Kong, the ledger or the destination is so slow")
		}
	}
	if r.Chain >= maxChain {
		r.Outcome = ranLeft
		return nil
	}
	r.Outcome = ranContinued
	if err := h.self.invoke(ctx, selfInvocation{continuation{Kind: rest, Chain: r.Chain + 1}}); err != nil {
		return fmt.Errorf("going on with what is left: %w", err)
	}
	return nil
}

// measure writes the metrics of an invocation, those that can be had.
func (h *lambdaHost) measure(ctx context.Context, log *slog.Logger, r *lambdaResult, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureMost)
	defer cancel()
	a, now := h.srv.app, time.Now()
	failures := 0.0
	if failed != nil {
		failures = 1
	}
	metrics := []emfMetric{{"EntriesDelivered", "Count", float64(r.Delivered)}, {"PassFailures", "Count", failures}}
	if m, err := a.store.Marks(ctx); err != nil {
		log.Warn("marks not read for the metrics", "err", err)
	} else if m.Completed > 0 {
		metrics = append(metrics, emfMetric{"LastCompletePassAge", "Seconds", age(now, time.Unix(m.Completed, 0))})
	}
	dead, deferred, err := a.store.UndeliveredCounts(ctx)
	_, oldest, oldestErr := a.store.OldestUndelivered(ctx)
	if err = errors.Join(err, oldestErr); err != nil {
		log.Warn("letters not counted for the metrics", "err", err)
	} else {
		undelivered := age(now, oldest)
		if r.Failed > 0 {
			// Known to this pass, and without an outcome.
			t := h.sink.unresolved()
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
	if err := writeEMF(h.env.stdout, now, a.settings.Source, metrics); err != nil {
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
