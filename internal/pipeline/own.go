package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// OwnReads remembers for an hour or so under which request ids Kong answered the
// reads of every relay on this ledger. Safe for concurrent use.
type OwnReads interface {
	// NoteOwnReads is durable once it returns nil. Repeating it is harmless.
	NoteOwnReads(ctx context.Context, requestIDs []string) error
	// AreOwnReads reports for each id whether it was noted.
	AreOwnReads(ctx context.Context, requestIDs []string) ([]bool, error)
}

// noteWithin bounds how long a page waits for its own read to be noted.
const noteWithin = 500 * time.Millisecond

// NoteOwnReads returns a source whose reads are noted as own reads.
func NoteOwnReads(source walk.Source, own OwnReads, log *slog.Logger) walk.Source {
	return notingSource{Source: source, own: own, log: log}
}

// notingSource notes the own reads that a source makes, at once: a relay that reads
// through the route which triggers it must know them before it is triggered.
type notingSource struct {
	walk.Source
	own OwnReads
	log *slog.Logger
}

func (s notingSource) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	page, err := s.Source.Page(ctx, q)
	if len(page.RequestIDs) == 0 {
		return page, err
	}
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWithin)
	defer cancel()
	if err := s.own.NoteOwnReads(noting, page.RequestIDs); err != nil {
		s.log.Debug("own read not noted, it is delivered and may trigger a poll", "err", err)
	}
	return page, err
}

// ownReads returns which of the new entries are reads of the audit log by a relay on
// this ledger, by index; nil if none is. The entry must itself be a read of the audit
// log: a proxy may replay the request id of an old response.
func (p *Pipeline) ownReads(ctx context.Context, entries []audit.Entry, outcomes []audit.Outcome) (map[int]bool, error) {
	var ids []string
	var at []int
	for i := range entries {
		if outcomes[i] == audit.NoOutcome && entries[i].IsAuditRead() {
			ids, at = append(ids, entries[i].RequestID), append(at, i)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	own, err := p.opts.OwnReads.AreOwnReads(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("looking up own reads: %w", err)
	}
	found := map[int]bool{}
	for k, is := range own {
		if is {
			found[at[k]] = true
		}
	}
	return found, nil
}
