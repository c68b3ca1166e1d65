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

// edited is a log of 800 rows, one a second as a rule, whose answers something edits.
type edited struct {
	second int               // rows of a second; 0: one
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
	var rows []int
	after := q.After
	if after > 0 && k.after != nil {
		after = k.after(after)
	}
	for row := k.purged; row < editedRows; row++ {
		if k.at(row) >= after {
			rows = append(rows, row)
		}
	}
	if !q.Ascending {
		slices.Reverse(rows)
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
	for _, row := range rows[min(begin, len(rows)):min(begin+q.Size, len(rows))] {
		e := audit.Entry{RequestID: fmt.Sprint("r", row), Timestamp: k.at(row)}
		e.ID = audit.Identity(&e)
		page.Entries = append(page.Entries, e)
	}
	if end := begin + q.Size; end < len(rows) {
		page.Offset = fmt.Sprint("o", end)
	}
	if k.answer != nil {
		k.answer(q, &page)
	}
	return page, nil
}

// at returns the time of a row.
func (k *edited) at(row int) int64 { return editedFirst + int64(row/max(k.second, 1)) }

// read walks the log from a floor on, and returns how many rows from the floor on it was not shown.
func (k *edited) read(t *testing.T, order Order, size int, floor int64) (missing int, err error) {
	t.Helper()
	return k.resume(t, order, size, Bounds{Floor: floor, RestartFloor: floor})
}

// resume walks the log within bounds, and returns how many rows of them it was not shown.
func (k *edited) resume(t *testing.T, order Order, size int, bounds Bounds) (missing int, err error) {
	t.Helper()
	w := NewReader(Options{Source: k, PageSize: size}).Walk()
	w.ReadIn(order)
	shown := map[string]bool{}
	err = w.Run(t.Context(), bounds, func(s Step) error {
		for i := range s.Entries {
			shown[s.Entries[i].RequestID] = true
		}
		return nil
	})
	for row := k.purged; row < editedRows; row++ {
		if k.at(row) >= bounds.Floor && !shown[fmt.Sprint("r", row)] {
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

// Rows that Kong purges between two pages give no reason to doubt its filter.
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
		for name, empty := range map[string]func(n int, q audit.Query) bool{
			"from the middle on": func(n int, _ audit.Query) bool { return n > 3 },
			"every second one":   func(n int, _ audit.Query) bool { return n%2 == 0 },
			"the first":          func(n int, _ audit.Query) bool { return n == 1 },
			"every odd one":      func(n int, _ audit.Query) bool { return n%2 == 1 },
			"the fourth":         func(n int, _ audit.Query) bool { return n == 4 },
			"at an offset":       func(_ int, q audit.Query) bool { return q.Offset != "" },
			"at later offsets":   func(_ int, q audit.Query) bool { return q.Offset > "o200" },
		} {
			n := 0
			k := &edited{answer: func(q audit.Query, page *audit.Page) {
				if n++; empty(n, q) {
					page.Entries, page.Offset = nil, ""
				}
			}}
			if strings.HasSuffix(name, "offsets") || strings.HasSuffix(name, "offset") {
				k.second = 300 // an oldest-first walk has offsets within a second
			}
			missing, err := k.read(t, order, 100, 0)
			lasting := name == "from the middle on" || k.second > 0
			if err == nil && (missing > 0 || lasting) || err != nil && (!lasting || audit.Hint(err) == "") {
				t.Errorf("%s, %s: %d rows are missing, %v", order, name, missing, err)
			}
		}
	}
}

// What is cut short goes on at an offset. If that shows nothing, or the log has an order by now,
// the walk starts over.
func TestResumedAtAnOffset(t *testing.T) {
	answers := 0
	for name, k := range map[string]*edited{
		"it shows nothing": {answer: func(_ audit.Query, page *audit.Page) {
			if answers++; answers <= 3 {
				page.Entries, page.Offset = nil, ""
			}
		}},
		"newest first by now, and the last page is full": {},
	} {
		if missing, err := k.resume(t, Unordered, 100, Bounds{Offset: "o700"}); err != nil || missing > 0 {
			t.Errorf("%s: %d rows are missing, %v", name, missing, err)
		}
	}
	nothing := &edited{answer: func(_ audit.Query, page *audit.Page) { page.Entries, page.Offset = nil, "" }}
	if _, err := nothing.resume(t, NewestFirst, 100, Bounds{Offset: "o700"}); err == nil || audit.Hint(err) == "" {
		t.Errorf("the log shows nothing any more: %v", err)
	}
}

// In a log without order all rows behind an offset can expire while others come before them. The
// walk starts over, once.
func TestOffsetThatLeadsNowhere(t *testing.T) {
	for _, last := range []int{3, 1_000_000} { // answers that show nothing at the offset
		answers, restarts := 0, 0
		k := &edited{answer: func(q audit.Query, page *audit.Page) {
			if q.Offset != "o300" {
				return
			}
			if answers++; answers <= last {
				page.Entries, page.Offset = nil, ""
			}
		}}
		w := NewReader(Options{Source: k, PageSize: 100}).Walk()
		w.ReadIn(Unordered)
		read := 0
		err := w.Run(t.Context(), Bounds{}, func(s Step) error {
			if s.Restart {
				restarts++
				read = 0
			}
			read += len(s.Entries)
			return nil
		})
		if restarts != 1 || last == 3 && (err != nil || read != editedRows) || last > 3 && (err == nil || audit.Hint(err) == "") {
			t.Errorf("%d answers: started over %d times, read %d rows: %v", last, restarts, read, err)
		}
	}
}

// Late rows in front of those that were shown give no reason to doubt the filter, nor do
// rows that expire between two queries, or an offset that expires.
func TestRowsThatComeAndGo(t *testing.T) {
	queries := 0
	late := &edited{answer: func(q audit.Query, page *audit.Page) {
		if q.After == 0 || q.Offset != "" || len(page.Entries) == 0 {
			return
		}
		for i := range page.Entries { // as if all that it was asked for had come late
			page.Entries[i].ID = fmt.Sprint("late", queries, "-", i)
			page.Entries[i].Timestamp = min(page.Entries[i].Timestamp, q.After+1)
		}
		queries++
	}}
	w := NewReader(Options{Source: late, PageSize: 100}).Walk()
	w.ReadIn(OldestFirst)
	n := 0
	err := w.Run(t.Context(), Bounds{}, func(Step) error {
		if n++; n == 5 {
			return context.Canceled
		}
		return nil
	})
	if w.Order() != OldestFirst {
		t.Errorf("late rows: %s, %v", w.Order(), err)
	}

	for _, order := range []Order{OldestFirst, NewestFirst, Unordered} {
		expiring := &hooked{}
		expiring.before = func(q audit.Query) error {
			if q.Size == 199 {
				expiring.purged = 1
			}
			return nil
		}
		refusing := &hooked{before: func(q audit.Query) error {
			switch {
			case q.Size != 199:
				return nil
			case order == OldestFirst:
				return audit.ErrUnsupportedQuery
			}
			return audit.ErrBadOffset
		}}
		for name, k := range map[string]*hooked{"a row that expires": expiring, "a query that is refused": refusing} {
			w := NewReader(Options{Source: k, PageSize: 200}).Walk()
			w.ReadIn(order)
			if err := w.Run(t.Context(), Bounds{}, func(Step) error { return nil }); err != nil {
				t.Errorf("%s, %s: %v", order, name, err)
			}
		}
	}
}

// While the end of a log without order is confirmed, a row of the last page may expire and
// another one may come in front of it.
func TestRowComesWhileTheEndIsConfirmed(t *testing.T) {
	const last = "o600"
	var came bool
	k := &edited{}
	k.answer = func(q audit.Query, page *audit.Page) {
		if q.Offset != last {
			return
		}
		switch {
		case q.Size == 199 && !came: // the last row of the page has expired
			came, page.Offset = true, ""
		case q.Size == 200 && came:
			page.Entries = append([]audit.Entry{{ID: "came"}}, page.Entries[:199]...)
		case q.Size == 199:
			page.Entries = append([]audit.Entry{{ID: "came"}}, page.Entries[:198]...)
		}
	}
	if missing, err := k.read(t, Unordered, 200, 0); err != nil || missing > 0 || !came {
		t.Errorf("%d rows are missing, %v", missing, err)
	}
}

// hooked calls before in front of each query.
type hooked struct {
	edited
	before func(audit.Query) error
}

func (k *hooked) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	if err := k.before(q); err != nil {
		return audit.Page{}, err
	}
	return k.edited.Page(ctx, q)
}

// A log without rows is empty, also if the first row comes while it is read. One that has
// shown a row is not.
func TestEmptyLog(t *testing.T) {
	for _, order := range []Order{OldestFirst, NewestFirst, Unordered} {
		for visible := range 6 { // the answer from which on the log has rows
			n := 0
			k := &edited{answer: func(_ audit.Query, page *audit.Page) {
				if n++; n <= visible {
					page.Entries, page.Offset = nil, ""
				}
			}}
			if _, err := k.read(t, order, 1000, 0); err != nil {
				t.Errorf("%s, rows from answer %d on: %v", order, visible+1, err)
			}
		}
		n := 0
		k := &edited{answer: func(_ audit.Query, page *audit.Page) {
			if n++; n != 2 {
				page.Entries, page.Offset = nil, ""
			}
		}}
		for _, floor := range []int64{0, editedFirst + 5} {
			if n = 0; order != OldestFirst && floor > 0 {
				continue
			}
			if _, err := k.read(t, order, 1000, floor); err == nil {
				t.Errorf("%s, from %d: one row, and nothing before and after it: complete", order, floor)
			}
		}
	}
}
