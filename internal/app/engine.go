package app

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/history"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/objects"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/redact"
	"github.com/kong-cloudtrail/relay/internal/runner"
	"github.com/kong-cloudtrail/relay/internal/secret"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// secretWithin bounds the reading of a secret while a trigger waits.
const secretWithin = 3 * time.Second

// Pipeline returns a new pipeline. keeper takes its lease; it may be nil.
func (a *App) Pipeline(o pipeline.Observer, keeper *lease.Keeper) *pipeline.Pipeline {
	s := a.Settings
	if keeper == nil {
		keeper = a.Lease(nil)
	}
	options := pipeline.Options{
		Source: a.source, Ledger: a.Store, Marks: a.Store, Undelivered: a.Store, OwnReads: a.Store, Lease: keeper,
		Destination: a.destination.Destination, UrgentDestination: a.destination.urgent,
		BatchEntries: a.kind.batchEntries, BatchBytes: a.kind.batchBytes, FlightBytes: a.kind.flightBytes,
		PageSize: s.PageSize, Workers: s.PutConcurrency, RetryFor: s.RetryFor, RecordTTL: s.RecordTTL,
		SkipOwnReads: s.SkipOwnReads, Adopt: s.Adopt, Observer: o, Logger: a.Log,
	}
	if !s.StartAt.IsZero() {
		options.StartAt = s.StartAt.Unix()
	}
	if len(s.Redact) > 0 {
		options.Prepare = redact.New(s.Redact)
	}
	if s.Objects {
		options.Changes = objects.New(objects.Options{
			Source: pipeline.NoteOwnReads(a.Kong.Objects(), a.Store, a.Log), Ledger: a.Store, Memory: a.Store, Announced: a.Store.Announced,
			PageSize: s.PageSize, StartAt: options.StartAt, RecordTTL: s.RecordTTL, Redact: s.Redact, Logger: a.Log,
			Observer: objects.Observer{Changed: o.Changed, Late: o.LateRows},
		})
	}
	return pipeline.New(options)
}

// WithoutChanges reports for each id whether its event was put without what its request
// changed, because Kong had not shown that in time.
func (a *App) WithoutChanges(ctx context.Context, ids []string) ([]bool, error) {
	marked := make([]bool, len(ids))
	if len(ids) == 0 {
		return marked, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = objects.MarkedLate(id)
	}
	values, _, err := a.Store.Recall(ctx, keys)
	if err != nil {
		return nil, err
	}
	for i := range values {
		marked[i] = values[i] != nil
	}
	return marked, nil
}

// History returns the changes of an entity since a Unix second, from Kong's two logs; 0
// is as far back as they go.
func (a *App) History(ctx context.Context, entity, name string, since int64) (*history.Report, error) {
	report, err := history.Read(ctx, history.Options{
		Requests: a.Kong, Objects: a.Kong.Objects(), Entity: entity, Name: name, Since: since, Redact: a.Settings.Redact, Logger: a.Log,
	})
	return report, Explain(err)
}

// Lease returns a keeper of the ledger's lease. rerun is called when another process
// requests a rerun; it may be nil.
func (a *App) Lease(rerun func()) *lease.Keeper {
	return lease.NewKeeper(lease.Options{
		Acquire: a.Store.Acquire,
		Begin:   a.Store.Begin,
		Rerun:   rerun,
		Logger:  a.Log,
	})
}

// Runner returns a runner of the passes that a scheduler asks for. A reconcile waits for
// the lease as long as wait says.
func (a *App) Runner(s *announce.Scheduler, passes runner.Passes, o runner.Observer, wait time.Duration) *runner.Runner {
	return runner.New(runner.Options{
		Passes: passes, Scheduler: s, Ledger: a.Store, Schedule: a.Settings.Schedule, LeaseWait: wait, Observer: o, Logger: a.Log,
	})
}

// TriggerOptions returns the options of a handler of triggers that both hosts set alike.
func (a *App) TriggerOptions() trigger.Options {
	s := &a.Settings
	secrets := map[string]secret.Secret{
		trigger.Path: s.TriggerSecret, trigger.EventHookPath: s.EventHooksSecret, trigger.HTTPLogPath: s.HTTPLogSecret,
	}
	return trigger.Options{
		Secrets: func(path string, reread bool) []string {
			if reread {
				secrets[path].Refresh()
			}
			return a.triggerSecrets(secrets[path])
		},
		ReserveNonce: a.Store.ReserveNonce, Rate: s.TriggerRate, Logger: a.Log,
	}
}

// triggerSecrets returns the secrets that a setting holds; none if they cannot be read, and
// then every trigger is refused.
func (a *App) triggerSecrets(secret secret.Secret) []string {
	ctx, cancel := context.WithTimeout(context.Background(), secretWithin)
	defer cancel()
	text, err := secret.Reveal(ctx)
	if err != nil {
		a.Log.Error("secret not readable, triggers are refused", "err", err)
		return nil
	}
	return config.SplitSecrets(text)
}
