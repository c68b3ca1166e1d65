package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
)

const (
	// canaryWithin is how long a canary read is looked for, at most, before another one
	// is made.
	canaryWithin = time.Minute
	// rememberCanary is how long the id of a canary read is known as such. If the ledger's
	// answer is lost, the id can be on the ledger's list of announced ids all the same, and
	// be found missing a day later.
	rememberCanary = 25 * time.Hour
	// canaryTick is the time between two checks whether a canary read is due.
	canaryTick = 5 * time.Second
	// provenFor is how old an entry may be to prove that Kong records, where no canary
	// reads are made.
	provenFor = 15 * time.Minute
	// retentionLeast is how long Kong should keep entries, at least: an outage may last
	// for a night.
	retentionLeast = 24 * time.Hour
	longestTTL     = 100 * 365 * 24 * 3600 // seconds; a time.Duration holds up to 292 years
)

const (
	hintNotRecorded = "look at audit_log, audit_log_ignore_methods and audit_log_ignore_paths of kong.conf, which the plugin's methods and ignore_paths must mirror, " +
		"and at Kong's error log: its database may refuse the row"
	hintCanary = "look at audit_log of kong.conf, and at Kong's error log: its database may refuse rows; " +
		"if audit_log_ignore_methods or audit_log_ignore_paths leave out GET /, turn the canary off with --canary off (RELAY_CANARY=off)"
	hintRetention = "raise audit_log_record_ttl in kong.conf (2592000 is 30 days): what Kong deletes while the relay or the destination is down is lost"
	hintNoLog     = "set audit_log = on in kong.conf of the node at KONG_ADMIN_API, and reload it: until then nothing is recorded there, and what is not recorded cannot be delivered"
)

// recording knows whether Kong records the requests that it answers. Any new row shows
// that it does, such as those of the relay's own reads unless Kong ignores reads. If no row
// has been written for some time, a canary read finds out.
type recording struct {
	every time.Duration // between canary reads; 0: none are made

	mu     sync.Mutex
	proven time.Time // when the newest entry was made that the log has shown; zero: not known
	asked  time.Time // when the last canary read was made, or the relay started
	lost   time.Time // when ids were last found missing; zero: never

	canaries map[string]time.Time // when the canary reads of the last day were made, by id

	retention time.Duration // how long Kong keeps what it recorded last; 0: not known
	short     bool          // and that is too short, and has been said
}

func newRecording(every time.Duration, now time.Time) *recording {
	return &recording{every: every, asked: now, canaries: map[string]time.Time{}}
}

// keeps notes when an entry was made and how long Kong keeps it. It reports whether to warn
// that this is too short.
func (r *recording) keeps(now, at time.Time, retention time.Duration) (say bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.Before(r.proven) {
		return false
	}
	r.retention = retention
	if now.Sub(at) > time.Hour {
		return false // the setting may have been another one then
	}
	was := r.short
	r.short = retention < retentionLeast
	return r.short && !was
}

func (r *recording) kept() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.retention
}

// due reports whether a canary read is to be made.
func (r *recording) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.proven
	if r.asked.After(last) {
		last = r.asked
	}
	for _, made := range r.canaries {
		if now.Sub(made) < canaryWithin && r.unproven(made) {
			return false // it is still looked for
		}
	}
	return r.every > 0 && now.Sub(last) >= r.every
}

// made notes a canary read, whose id is empty if Kong's answer had none.
func (r *recording) made(now time.Time, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = now
	maps.DeleteFunc(r.canaries, func(_ string, at time.Time) bool { return now.Sub(at) > rememberCanary })
	if id != "" {
		r.canaries[id] = now
	}
}

// seen takes the timestamp of an entry, and reports whether it proves that Kong
// records now.
func (r *recording) seen(now, at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.After(now) {
		at = now // of a clock that is ahead
	}
	if at.After(r.proven) {
		r.proven = at
	}
	return !at.Before(r.lost.Truncate(time.Second)) && now.Sub(at) < cmp.Or(r.every, provenFor)
}

// missing takes ids that were not recorded. It reports whether a canary read is one of them
// and no newer entry was recorded, which would show that Kong only ignores such reads. It
// returns the ids that are not of canary reads.
func (r *recording) missing(now time.Time, ids []string) (canary bool, others []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		made, ok := r.canaries[id]
		if !ok {
			others = append(others, id)
		} else if r.unproven(made) {
			canary = true
		}
		delete(r.canaries, id)
	}
	if canary || len(others) > 0 {
		r.lost = now
	}
	return canary, others
}

// unproven reports whether the log has shown nothing since. r.mu is held.
func (r *recording) unproven(since time.Time) bool {
	return r.proven.Before(since.Truncate(time.Second))
}

func (r *recording) provenAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proven
}

// followRecording makes a canary read when one is due, and announces its id.
func (s *server) followRecording(ctx context.Context) {
	now := time.Now()
	if !s.recording.due(now) || s.health.State(health.Kong).Status != health.OK {
		return
	}
	id, err := s.app.Kong.Canary(ctx)
	s.recording.made(now, id)
	if err != nil || id == "" {
		s.log.Debug("canary read proves nothing", "err", err) // Kong's own state says what fails
		return
	}
	if err := s.runner.Notify(ctx, []string{id}, now); err != nil {
		s.log.Debug("canary read not noted", "err", err) // the ledger's state says it
	}
}

// notRecorded handles ids that were announced and have not shown up.
func (s *server) notRecorded(ids []string) {
	now := time.Now()
	canary, others := s.recording.missing(now, ids)
	s.metrics.missing.Add(float64(len(others)))
	s.updates.Add(1)
	if len(others) < len(ids) {
		s.scheduler.Ignore(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(others, id) }))
	}
	within := fmt.Sprintf("%.0f s", announce.MissingAfter.Seconds())
	switch {
	case len(others) > 0:
		s.report(health.Recording, "recorded", audit.WithHint(
			fmt.Errorf("kong answers but does not record: it answered %s that its audit log has not shown within %s", app.Plural(len(others), "request"), within), hintNotRecorded))
	case canary:
		s.report(health.Recording, "recorded", audit.WithHint(
			fmt.Errorf("kong answers but does not record: its audit log has not shown the relay's own request GET / within %s", within), hintCanary))
	}
}

func (s *server) recorded(entries []audit.Entry) {
	now, proof := time.Now(), false
	for i := range entries {
		at := time.Unix(entries[i].Timestamp, 0)
		retention := max(0, now.Sub(at)).Round(time.Second) + time.Duration(min(entries[i].TTL, longestTTL))*time.Second
		if entries[i].TTL > 0 && s.recording.keeps(now, at, retention) {
			s.log.Warn("kong keeps entries for less than a day", "seconds", retention.Seconds(), "hint", hintRetention)
		}
		if s.recording.seen(now, at) {
			proof = true
		}
	}
	if proof {
		s.report(health.Recording, "recorded", nil)
	}
}

// reportLog notes whether Kong has an audit log at all. That it has one does not prove that
// it records.
func (s *server) reportLog(err error) {
	switch {
	case errors.Is(err, audit.ErrNoAuditLog):
		s.health.Report(time.Now(), health.Recording, "log", audit.NewSettingsError(fmt.Errorf("kong answers but does not record: %w", err), hintNoLog))
	case err == nil:
		s.health.Recovered(time.Now(), health.Recording, "log")
	}
}
