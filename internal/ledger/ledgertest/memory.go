package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testMemory(t *testing.T, b Backend) {
	x, y, empty := begun(t, b)
	recall := func(l Ledger, version int64, keys []string, want ...string) {
		t.Helper()
		values, v, err := l.Recall(bg(), keys)
		Must(t, err)
		got := make([]string, len(values))
		for i := range values {
			got[i] = string(values[i])
		}
		if v != version || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("Recall(%q) = %q, version %d; want %q, version %d", keys, got, v, want, version)
		}
	}
	later := time.Now().Add(time.Hour)
	item := func(key, value string, until time.Time) audit.Item {
		return audit.Item{Key: key, Value: []byte(value), Until: until}
	}
	recall(x, 0, []string{"a", "generation"}, "", "")
	binary := "\x00\xff 1 2\n"
	Equal(t, Value(x.Remember(bg(), 0, []audit.Item{item("a", "1", later), item("b", binary, later), item("generation", "g", later)}, 10))(t), 0)
	recall(y, 1, []string{"b", "c", "a", "generation", "version"}, binary, "", "1", "g", "")

	// All or nothing, and only by whoever knows the version.
	_, err := y.Remember(bg(), 0, []audit.Item{item("a", "wrong", later)}, 10)
	WantErr(t, err, audit.ErrMemoryChanged)
	Equal(t, Value(y.Remember(bg(), 1, []audit.Item{item("a", "2", later), item("b", "", later)}, 10))(t), 0)
	recall(x, 2, []string{"a", "b"}, "2", "")

	// What has expired is gone, and does not count.
	Equal(t, Value(x.Remember(bg(), 2, []audit.Item{item("old", "o", time.Now().Add(-time.Second))}, 2))(t), 0)
	recall(x, 3, []string{"old", "a", "generation"}, "", "2", "g")

	// Of too many, those go whose time comes first.
	Equal(t, Value(x.Remember(bg(), 3, []audit.Item{item("a", "3", later.Add(time.Hour)), item("c", "4", later.Add(2*time.Hour))}, 2))(t), 1)
	recall(x, 4, []string{"a", "c", "generation"}, "3", "4", "")

	// It belongs to its generation.
	empty()
	if _, _, err := x.Recall(bg(), []string{"a"}); err == nil {
		t.Error("an emptied ledger has a memory")
	}
	_, err = x.Remember(bg(), 4, []audit.Item{item("a", "1", later)}, 10)
	WantErr(t, err, audit.ErrLedgerReplaced)
	Must(t, x.Begin(bg()))
	recall(x, 0, []string{"a", "c"}, "", "")
	Equal(t, Value(x.Remember(bg(), 0, []audit.Item{item("a", "5", later)}, 10))(t), 0)
	recall(x, 1, []string{"a", "c"}, "5", "")
}
