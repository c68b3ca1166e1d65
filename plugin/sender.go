package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// sender triggers one target: at once for the first id, then at most once in an
// interval for all that came meanwhile, and always a last time. What it holds is
// bounded by the settings' queueSize and one trigger.
//
// A poll is a separate trigger without ids, because the relay stops polling
// when the ids of a trigger have shown up. It goes out after the ids, which say
// more, but after one trigger with ids, so that it is not put off while more come.
type sender struct {
	all    *senders
	set    settings
	target target
	cancel context.CancelFunc
	wake   chan struct{} // holds one: there may be something to send

	// Guarded by all.mu.
	queue    []string  // ids that wait
	inFlight []string  // ids of the trigger that is being sent
	sending  bool      // a trigger is being sent, maybe without ids
	poll     bool      // a trigger without ids is wanted: something happened that no id in the queue says
	pollNext bool      // the poll goes out before more ids: some have been sent since it was wanted
	idle     bool      // the next event is sent at once
	added    time.Time // when the last event came

	outcome    chan string // receives the line for Kong's log about the next trigger; nil if no event waits
	failures   int         // since the last line in Kong's log
	trouble    error       // why the last trigger failed, or nil
	reported   bool        // Kong's log has a line about this trouble
	reportedAt time.Time
}

// add queues an event. It returns a line for Kong's log, or "", and a channel if
// the event is the first that the next trigger is sent for. all.mu must be held.
func (s *sender) add(id string) (line string, outcome chan string) {
	s.added = time.Now()
	if id == "" || len(s.queue) >= s.set.queueSize {
		s.poll = true
	} else {
		s.queue = append(s.queue, id)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if s.awaits() {
		s.outcome = make(chan string, 1)
		return "", s.outcome
	}
	return s.line(s.added), nil
}

// awaits reports whether the next event is to wait for the answer to its trigger.
// all.mu must be held.
func (s *sender) awaits() bool { return s.idle && s.outcome == nil }

// lineDue reports whether Kong's log is to get a line about the last failure.
// all.mu must be held.
func (s *sender) lineDue(now time.Time) bool {
	every := reportEvery
	if !s.reported {
		every = spellEvery
	}
	return s.trouble != nil && (s.reportedAt.IsZero() || now.Sub(s.reportedAt) >= every)
}

// line returns a line for Kong's log about the last failure, or "" if none is due.
// all.mu must be held.
func (s *sender) line(now time.Time) string {
	if !s.lineDue(now) {
		return ""
	}
	line := fmt.Sprintf("%s failed: %v; the relay reads the entries on its schedule", name, s.trouble)
	if s.failures > 1 {
		line += fmt.Sprintf(" (%d failures since the last line)", s.failures)
	}
	s.failures, s.reported, s.reportedAt = 0, true, now
	return line
}

func (s *sender) run(ctx context.Context) {
	defer s.cancel()
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	var pause time.Duration
	for {
		ids, ok := s.take()
		if !ok {
			idle.Reset(idleAfter)
			select {
			case <-s.wake:
			case <-idle.C:
				if s.retire() {
					return
				}
			case <-ctx.Done():
				return
			}
			continue
		}
		start := time.Now()
		err := s.deliver(ctx, ids)
		s.finish(ids, err)
		if err == nil {
			pause = s.set.minInterval
		} else {
			pause = min(max(2*pause, s.set.minInterval, 100*time.Millisecond), max(maxPause, s.set.minInterval))
		}
		select {
		case <-time.After(time.Until(start.Add(pause))):
		case <-ctx.Done():
			return
		}
	}
}

// take removes from the queue what fits into one trigger. It returns false if there
// is nothing to send.
func (s *sender) take() ([]string, bool) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.idle = len(s.queue) == 0 && !s.poll; s.idle {
		return nil, false
	}
	s.sending = true
	if s.poll && (s.pollNext || len(s.queue) == 0) {
		s.poll, s.pollNext = false, false
		return nil, true
	}
	s.pollNext = s.poll
	n := trigger.Fit(s.queue)
	s.inFlight = s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil // so that what was sent can be freed
	}
	return s.inFlight, true
}

// finish notes how a trigger ended, and queues its ids again if that can help.
func (s *sender) finish(ids []string, err error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.inFlight, s.sending, s.trouble = nil, false, err
	if err == nil {
		s.failures, s.reported = 0, false
	} else {
		s.failures++
		s.requeue(ids, err)
	}
	if s.outcome != nil {
		s.outcome <- s.line(time.Now())
		s.outcome = nil
	}
}

func (s *sender) requeue(ids []string, err error) {
	if trigger.Final(err) {
		return
	}
	if time.Since(s.added) > giveUpAfter {
		s.queue, s.poll, s.pollNext = nil, false, false
		return
	}
	queue := append(append([]string{}, ids...), s.queue...)
	s.queue = queue[:min(len(queue), s.set.queueSize)]
	if len(ids) == 0 || len(s.queue) < len(queue) {
		s.poll = true // once more, or for the ids that have no room
	}
}

// retire removes an idle sender. It returns false if an event came meanwhile.
func (s *sender) retire() bool {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if len(s.queue) > 0 || s.poll {
		return false
	}
	delete(s.all.bySet, s.set)
	return true
}

var errPanic = errors.New("the sender panicked; the log of the plugin's process says why")

// deliver sends one trigger. The process serves every worker of Kong, so a bug here
// may cost a trigger, but not the process.
func (s *sender) deliver(ctx context.Context, ids []string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.all.logger.Error("recovered in a sender", "panic", v)
			err = errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, maxDelivery)
	defer cancel()
	return s.target.Notify(ctx, ids)
}
