package walk

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// previewing is a log that sends previews, and takes a second to decode a page.
type previewing struct {
	table
	guess func(audit.Preview) audit.Preview
}

func (k *previewing) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	if !second(ctx) {
		return audit.Page{}, ctx.Err()
	}
	page, err := k.table.Page(ctx, q)
	if n := len(page.Entries); n > 0 && q.Preview != nil {
		q.Preview <- k.guess(audit.Preview{Offset: page.Offset, Last: page.Entries[n-1].Timestamp})
	}
	if !second(ctx) {
		return audit.Page{}, ctx.Err()
	}
	return page, err
}

// second reports whether a second passed before ctx ended.
func second(ctx context.Context) bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

// The next page is asked for while one is decoded. Whatever the previews say, the walk
// reads the same, and at most one request is made in vain.
func TestReadAhead(t *testing.T) {
	var times []int64
	for i := range int64(100) {
		times = append(times, repeat(1_000_000+i, 10)...)
	}
	for name, test := range map[string]struct {
		guess func(audit.Preview) audit.Preview
		ahead bool
	}{
		"right":           {func(p audit.Preview) audit.Preview { return p }, true},
		"nothing follows": {func(audit.Preview) audit.Preview { return audit.Preview{} }, false},
		"another time":    {func(p audit.Preview) audit.Preview { return audit.Preview{Offset: p.Offset, Last: p.Last + 7} }, false},
		"another offset":  {func(p audit.Preview) audit.Preview { return audit.Preview{Offset: "x" + p.Offset} }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := &previewing{table{times: times}, test.guess}
			w := NewReader(Options{Source: k, PageSize: 50}).Walk()
			w.ReadIn(OldestFirst)
			begin, handedOn := time.Now(), 0
			if err := w.Run(t.Context(), Bounds{}, func(s Step) error {
				handedOn += len(s.Entries)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			pages := w.Position().Pages
			perPage := time.Since(begin).Seconds() / float64(pages)
			if handedOn != len(times) || k.pages > pages+1 {
				t.Errorf("%s: %d of %d entries in %d pages, %d requests", name, handedOn, len(times), pages, k.pages)
			}
			if ahead := perPage < 1.2; ahead != test.ahead {
				t.Errorf("%s: %.1f s a page, of which a second is decoding", name, perPage)
			}
		})
	}
}

// An error ends the request that was made ahead.
func TestReadAheadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &previewing{table{times: repeat(1_000_000, 200)}, func(p audit.Preview) audit.Preview { return p }}
		w := NewReader(Options{Source: k, PageSize: 50}).Walk()
		w.ReadIn(OldestFirst)
		if err := w.Run(t.Context(), Bounds{}, func(Step) error { return context.Canceled }); err == nil {
			t.Error("the walk went on")
		}
	})
}
