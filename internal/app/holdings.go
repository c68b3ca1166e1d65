package app

import (
	"context"
	"iter"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/history"
)

// Holdings is how the destination is asked which events it holds.
type Holdings struct {
	Name string // of the destination, for a person
	// Visible is how long the destination may not show an event that it has accepted.
	Visible time.Duration
	// Most is how many events may be asked for at once; 0 is any number.
	Most int
	// Refiles reports whether an event may be filed under another time than its own:
	// that of its put.
	Refiles bool
	// Events yields the events that are filed under a time from since to until
	// (excluded), Unix seconds, in no order that can be relied on. An event may come
	// once for each time that it is there, and a line that is no event comes without
	// a UID. It retries what passes in a minute or so; an error ends it, a
	// [*audit.SettingsError] where a person has to act.
	Events func(ctx context.Context, since, until int64) iter.Seq2[audit.Held, error]
}

// Holdings returns how the destination is asked what it holds, or nil if it cannot
// be: standard output, a pipe, a channel whose event data store is not known.
func (a *App) Holdings(ctx context.Context) (*Holdings, error) {
	kind, err := kindOf(&a.Settings)
	if err != nil {
		return nil, err
	}
	return kind.holdings(ctx, &a.Settings)
}

// eventSource is that of every event.
const eventSource = "kong-gateway"

// History returns what Kong's logs say of the changes of an entity since a Unix second;
// 0 is as far back as they go.
func (a *App) History(ctx context.Context, entity, name string, since int64) (*history.Report, error) {
	report, err := history.Read(ctx, history.Options{
		Requests: a.Kong, Objects: a.Kong.Objects(), Entity: entity, Name: name, Since: since, Redact: a.Settings.Redact, Logger: a.Log,
	})
	return report, Explain(err)
}
