package walk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// table is a log in memory that is read oldest first, and where after includes its
// own second or not, one after the other.
type table struct {
	times []int64 // in order
	pages int
}

func (k *table) Page(_ context.Context, q audit.Query) (audit.Page, error) {
	k.pages++
	after := q.After
	if k.pages%2 == 0 {
		after++
	}
	first, _ := slices.BinarySearch(k.times, after)
	if q.Offset != "" {
		if _, err := fmt.Sscanf(q.Offset, "o%d", &first); err != nil {
			return audit.Page{}, audit.ErrBadOffset
		}
	}
	end := min(first+q.Size, len(k.times))
	page := audit.Page{Date: time.Now()}
	for i := first; i < end; i++ {
		e := audit.Entry{RequestID: fmt.Sprint("r", i), Timestamp: k.times[i]}
		e.ID = audit.Identity(&e)
		page.Entries = append(page.Entries, e)
	}
	if end < len(k.times) {
		page.Offset = fmt.Sprint("o", end)
	}
	return page, nil
}

func repeat(at int64, n int) []int64 { return slices.Repeat([]int64{at}, n) }

// What a walk remembers does not grow with the log, and nothing is handed on twice
// or left out, although nodes differ in what after means.
func TestWalkForgets(t *testing.T) {
	k := &table{times: repeat(1_000_000, 20_500)}
	for i := range int64(1700) {
		k.times = append(k.times, repeat(1_000_100+3*i, 3)...)
	}
	w := NewReader(Options{Source: k, PageSize: 50}).Walk()
	w.ReadIn(OldestFirst)
	most, handedOn := 0, map[string]int{}
	if err := w.Run(t.Context(), Bounds{}, func(s Step) error {
		for i := range s.Entries {
			handedOn[s.Entries[i].ID]++
		}
		most = max(most, len(w.seam.ids))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if most > maxSeam || len(w.seam.ids) > 60 || len(w.offsets) > 1 {
		t.Errorf("at most %d ids, %d ids and %d offsets at the end", most, len(w.seam.ids), len(w.offsets))
	}
	if len(handedOn) != len(k.times) {
		t.Errorf("%d of %d rows were handed on", len(handedOn), len(k.times))
	}
	repeated := 0
	for _, n := range handedOn {
		repeated += n - 1
	}
	if repeated > 50 { // where the seam is full, one page is left to the ledger
		t.Errorf("%d rows were handed on again", repeated)
	}
}

// A walk finds out by itself whether Kong filters by time.
func TestRunWithoutProbe(t *testing.T) {
	w := NewReader(Options{Source: &table{times: repeat(1_000_000, 70)}}).Walk()
	rows := 0
	err := w.Run(t.Context(), Bounds{}, func(s Step) error {
		rows += len(s.Entries)
		return nil
	})
	if err != nil || rows != 70 || w.Order() != OldestFirst {
		t.Errorf("%d rows, %s, %v", rows, w.Order(), err)
	}
}

// endless gives the same rows behind offsets that never end.
type endless struct{ table }

func (k *endless) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	q.Offset = ""
	page, err := k.table.Page(ctx, q)
	page.Offset = fmt.Sprint("offset", k.pages)
	return page, err
}

// A log whose offsets lead nowhere is an error, however it is read.
func TestOffsetsWithoutEnd(t *testing.T) {
	for _, times := range [][]int64{nil, repeat(1_000_000, 70)} {
		for _, order := range []Order{OldestFirst, NewestFirst, Unordered} {
			k := &endless{table{times: times}}
			w := NewReader(Options{Source: k, PageSize: 50}).Walk()
			w.ReadIn(order)
			err := w.Run(t.Context(), Bounds{}, func(Step) error {
				if k.pages > 3*maxIdle {
					return errors.New("it goes on without end")
				}
				return nil
			})
			if audit.Hint(err) == "" {
				t.Errorf("%s, %d rows: %v", order, len(times), err)
			}
		}
	}
}

// undated is a log of which every other page comes from a node that, where it is to filter,
// shows the newest rows instead, without their times.
type undated struct{ table }

func (k *undated) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	old := q.After != 0 && k.pages%2 == 1
	if old {
		q.Offset, q.After = fmt.Sprint("o", len(k.times)-q.Size), 0
	}
	page, err := k.table.Page(ctx, q)
	for i := range page.Entries {
		page.Entries[i].TimestampGuessed = old
	}
	return page, err
}

// A page of a node that does not filter is noticed although its rows have no times: the walk
// would go on behind rows that it has not read.
func TestNodeThatDoesNotFilter(t *testing.T) {
	var times []int64
	for i := range int64(200) {
		times = append(times, 1_000_000+i)
	}
	w := NewReader(Options{Source: &undated{table{times: times}}, PageSize: 50}).Walk()
	w.ReadIn(OldestFirst)
	handedOn := map[string]bool{}
	if err := w.Run(t.Context(), Bounds{}, func(s Step) error {
		for i := range s.Entries {
			handedOn[s.Entries[i].ID] = true
		}
		return nil
	}); err != nil || len(handedOn) != len(times) || w.Order() == OldestFirst {
		t.Errorf("%d of %d rows were read %s: %v", len(handedOn), len(times), w.Order(), err)
	}
}
