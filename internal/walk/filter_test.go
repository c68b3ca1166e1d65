package walk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// edited is a log of 800 rows, one a second, whose answers something edits.
type edited struct {
	after  func(int64) int64 // what the filter makes of a time
	answer func(audit.Query, *audit.Page)
	purged int // rows, of the oldest ones
	most   int // rows of a page, whatever is asked for
}

const (
	editedRows  = 800
	editedFirst = 1_000_000
)

func (k *edited) Page(_ context.Context, q audit.Query) (audit.Page, error) {
	var times []int64
	after := q.After
	if after > 0 && k.after != nil {
		after = k.after(after)
	}
	for at := int64(editedFirst + k.purged); at < editedFirst+editedRows; at++ {
		if at >= after {
			times = append(times, at)
		}
	}
	if !q.Ascending {
		slices.Reverse(times)
	}
	if k.most > 0 {
		q.Size = min(q.Size, k.most)
	}
	begin := 0
	if q.Offset != "" {
		if _, err := fmt.Sscanf(q.Offset, "o%d", &begin); err != nil {
			return audit.Page{}, audit.ErrBadOffset
		}
	}
	page := audit.Page{Date: time.Unix(editedFirst+editedRows, 0)}
	for _, at := range times[begin:min(begin+q.Size, len(times))] {
		e := audit.Entry{RequestID: fmt.Sprint("r", at), Timestamp: at}
		e.ID = audit.Identity(&e)
		page.Entries = append(page.Entries, e)
	}
	if end := begin + q.Size; end < len(times) {
		page.Offset = fmt.Sprint("o", end)
	}
	if k.answer != nil {
		k.answer(q, &page)
	}
	return page, nil
}

// read walks the log, and returns how many rows from the floor on it was not shown.
func (k *edited) read(t *testing.T, order Order, size int, floor int64) (missing int, err error) {
	t.Helper()
	w := NewReader(Options{Source: k, PageSize: size}).Walk()
	w.ReadIn(order)
	shown := map[int64]bool{}
	err = w.Run(t.Context(), Bounds{Floor: floor, RestartFloor: floor}, func(s Step) error {
		for i := range s.Entries {
			shown[s.Entries[i].Timestamp] = true
		}
		return nil
	})
	for at := int64(editedFirst + k.purged); at < editedFirst+editedRows; at++ {
		if at >= floor && !shown[at] {
			missing++
		}
	}
	return missing, err
}

// A filter by time that leaves rows out must not look like the end of the log.
func TestFilterThatShowsTooLittle(t *testing.T) {
	for name, k := range map[string]*edited{
		"nothing":           {after: func(int64) int64 { return farFuture }},
		"an hour less":      {after: func(at int64) int64 { return at + 3600 }},
		"ten minutes less":  {after: func(at int64) int64 { return at + 600 }},
		"a minute less":     {after: func(at int64) int64 { return at + 60 }},
		"everything":        {after: func(int64) int64 { return 0 }},
		"what is right":     {},
		"what is exclusive": {after: func(at int64) int64 { return at + 1 }},
	} {
		for _, floor := range []int64{0, editedFirst + 5} {
			if missing, err := k.read(t, OldestFirst, 100, floor); err != nil || missing > 0 {
				t.Errorf("%s, from %d: %d rows are missing, %v", name, floor, missing, err)
			}
		}
	}
}

// Rows that Kong purges between two pages are no reason to doubt its filter.
func TestFilterWhilePurging(t *testing.T) {
	k := &edited{}
	k.answer = func(audit.Query, *audit.Page) { k.purged = min(k.purged+150, editedRows-50) }
	w := NewReader(Options{Source: k, PageSize: 100}).Walk()
	w.ReadIn(OldestFirst)
	if err := w.Run(t.Context(), Bounds{}, func(Step) error { return nil }); err != nil || w.Order() != OldestFirst {
		t.Errorf("%s, %v", w.Order(), err)
	}
}

// A full page without an offset is the last one only if there is nothing behind it.
func TestOffsetsThatAreTakenOut(t *testing.T) {
	for _, order := range []Order{OldestFirst, NewestFirst, Unordered} {
		k := &edited{answer: func(_ audit.Query, page *audit.Page) { page.Offset = "" }}
		if missing, err := k.read(t, order, 200, 0); err == nil || !strings.Contains(audit.Hint(err), "takes fields out") {
			t.Errorf("%s: %d rows are missing, %v", order, missing, err)
		}
		k.most = 100
		if _, err := k.read(t, order, 200, 0); err == nil || !strings.Contains(audit.Hint(err), "takes fields out") {
			t.Errorf("%s, pages of 100 rows at most: %v", order, err)
		}
		k = &edited{}
		if missing, err := k.read(t, order, 200, 0); err != nil || missing > 0 { // the last page is full
			t.Errorf("%s: %d rows are missing, %v", order, missing, err)
		}
	}
}

// Answers without rows, from the middle of a walk on or now and then, are not its end.
func TestAnswersWithoutRows(t *testing.T) {
	for _, order := range []Order{OldestFirst, NewestFirst, Unordered} {
		for name, empty := range map[string]func(n int) bool{
			"from the middle on": func(n int) bool { return n > 3 },
			"every second one":   func(n int) bool { return n%2 == 0 },
			"the fourth":         func(n int) bool { return n == 4 },
		} {
			n := 0
			k := &edited{answer: func(_ audit.Query, page *audit.Page) {
				if n++; empty(n) {
					page.Entries, page.Offset = nil, ""
				}
			}}
			missing, err := k.read(t, order, 100, 0)
			if err == nil && missing > 0 || err != nil && (name != "from the middle on" || audit.Hint(err) == "") {
				t.Errorf("%s, %s: %d rows are missing, %v", order, name, missing, err)
			}
		}
	}
}
