package objects_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// table is one of Kong's two logs, sorted by time.
type table struct {
	mu      sync.Mutex
	rows    []audit.Entry
	waiting []insert
	down    bool
	newest  bool // newest first, without filters
	reads   int
}

// insert is a row that is still to show up.
type insert struct {
	row audit.Entry
	at  time.Time
}

func (t *table) add(row audit.Entry, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, insert{row, at})
}

func (t *table) show() {
	now := time.Now()
	t.waiting = slices.DeleteFunc(t.waiting, func(w insert) bool {
		if w.at.After(now) {
			return false
		}
		at, _ := slices.BinarySearchFunc(t.rows, w.row, compareRows)
		t.rows = slices.Insert(t.rows, at, w.row)
		return true
	})
}

func compareRows(a, b audit.Entry) int {
	return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), strings.Compare(a.ID, b.ID))
}

func (t *table) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return audit.Page{}, fmt.Errorf("503 Service Unavailable")
	}
	t.reads++
	t.show()
	page := audit.Page{Date: time.Now().Truncate(time.Second)}
	if t.newest {
		from, _ := strconv.Atoi(q.Offset)
		for i := len(t.rows) - 1 - from; i >= 0; i-- {
			if len(page.Entries) == q.Size {
				page.Offset = strconv.Itoa(from + q.Size)
				break
			}
			page.Entries = append(page.Entries, t.rows[i])
		}
		return page, nil
	}
	from, _ := slices.BinarySearchFunc(t.rows, audit.Entry{Timestamp: q.After}, compareRows)
	if at, ts, ok := strings.Cut(q.Offset, "@"); ok {
		n, _ := strconv.ParseInt(ts, 10, 64)
		from, _ = slices.BinarySearchFunc(t.rows, audit.Entry{Timestamp: n, ID: at + "\x00"}, compareRows)
	}
	end := min(len(t.rows), from+q.Size)
	page.Entries = slices.Clone(t.rows[from:end])
	for i := range page.Entries {
		page.Bytes += page.Entries[i].Size()
	}
	if end < len(t.rows) {
		last := &t.rows[end-1]
		page.Offset = last.ID + "@" + strconv.FormatInt(last.Timestamp, 10)
	}
	return page, nil
}

func (t *table) setDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

var _ walk.Source = (*table)(nil)
