package app

import (
	"context"

	"github.com/kong-cloudtrail/relay/internal/history"
)

// History returns what Kong's logs say of the changes of an entity since a Unix second;
// 0 is as far back as they go.
func (a *App) History(ctx context.Context, entity, name string, since int64) (*history.Report, error) {
	report, err := history.Read(ctx, history.Options{
		Requests: a.Kong, Objects: a.Kong.Objects(), Entity: entity, Name: name, Since: since, Redact: a.Settings.Redact, Logger: a.Log,
	})
	return report, Explain(err)
}
