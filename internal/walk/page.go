package walk

import (
	"context"
	"errors"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// farFuture is 2100-01-01 as a Unix second. The probe asks for rows after it. There are
	// none, so a Kong that filters by time answers with an empty page.
	farFuture = 4102444800

	// cooldown is how many pages must be read after one that was too large before more rows
	// are asked for: large rows seldom come alone.
	cooldown = 8

	// smallPage is the size in bytes below which twice as many rows are asked for.
	smallPage = 400 << 10

	// clockSkew is how far Kong's clock may be from this machine's before the relay warns.
	clockSkew = 30 * time.Second
)

// Probe finds out whether Kong filters by time, with one small page. If it is the walk's
// first page, [Walk.KongTime] is its date.
func (w *Walk) Probe(ctx context.Context) error {
	page, err := w.page(ctx, audit.Query{Size: 1, After: farFuture})
	filters := err == nil && len(page.Entries) == 0
	if err != nil && !errors.Is(err, audit.ErrUnsupportedQuery) {
		return err
	}
	before := w.order
	w.order = NewestFirst
	if filters {
		w.order = OldestFirst
	} else if before != NewestFirst && before != Unordered {
		w.reader.log.Info("kong does not filter by time, reading newest first")
	}
	return nil
}

// page asks for a page, and for a smaller one where that may help.
func (w *Walk) page(ctx context.Context, q audit.Query) (audit.Page, error) {
	for failed := 0; ; {
		page, err := w.fetch(ctx, q)
		if err == nil {
			w.answered(page)
			w.asked = q.Size
			if w.kongTime.IsZero() {
				w.kongTime, w.began = w.reader.clock(page.Date), time.Now()
			}
			switch {
			case q.After == farFuture || page.Bytes >= smallPage:
			case w.cooldown > 0:
				w.cooldown--
			default:
				w.size = min(w.reader.opts.PageSize, w.size*2)
			}
			return page, nil
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), // --kong-timeout, for all attempts at the page
			audit.NeedsPerson(err), errors.Is(err, audit.ErrBadOffset), errors.Is(err, audit.ErrUnsupportedQuery), q.Size <= 1:
			return audit.Page{}, err
		case errors.Is(err, audit.ErrPageTooLarge):
			w.cooldown = cooldown
		default:
			// Large rows can make Kong itself fail. Ask for less, but only twice.
			if failed++; failed > 2 {
				return audit.Page{}, err
			}
		}
		q.Size /= 2
		w.size = q.Size
		w.reader.log.Debug("asking for fewer rows", "size", q.Size, "err", err) // if these fail as well, the caller reports it
	}
}

// clock returns Kong's clock: the date of an answer, or this machine's clock without one.
func (r *Reader) clock(date time.Time) time.Time {
	now := time.Now()
	if date.IsZero() {
		if r.firstWarning("date") {
			r.log.Warn("kong sends no Date header, using this machine's clock")
		}
		return now
	}
	if ahead := date.Sub(now); ahead.Abs() > clockSkew+time.Second && r.firstWarning("skew") {
		r.log.Warn("kong's clock and this machine's differ", "ahead_seconds", int(ahead.Seconds()),
			"hint", "set both clocks by NTP: triggers are refused and marks come late where they differ by minutes")
	}
	return date
}
