package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// kong is an audit log in memory that pages as the releases of Kong do.
type kong struct {
	sorts      bool // by time, newest first unless asked otherwise; else by a key that has no order
	filters    bool // by `after`, and oldest first on request
	exclusive  bool // `after` leaves its own second out
	positional bool // offsets count rows; else they name the last one
	ownReads   bool // each read becomes a row
	noDate     bool
	cachedID   string        // named by every answer as the id of the read
	skew       time.Duration // of Kong's clock
	maxBytes   int           // page of more than one row that is too large; 0: none
	delay      time.Duration // of a page

	// hook is called before a page is read, and may change the log or fail the
	// page. n counts pages from 1.
	hook func(n int, q audit.Query) error
	// reorder may change the rows of a page that is ready.
	reorder func(n int, q audit.Query, rows []audit.Entry)
	// offset may replace the token of a page.
	offset func(n int, token string) string

	mu     sync.Mutex
	rows   []krow
	sorted map[string][]krow // by way; nil after a change
	next   int
	pages  []audit.Query
}

type krow struct {
	audit.Entry
	key string // random order of the table
}

// add writes rows with the given times and returns their ids.
func (k *kong) add(times ...int64) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []string
	for _, t := range times {
		ids = append(ids, k.insert(audit.Entry{Timestamp: t, Method: "GET", Path: "/services"}))
	}
	return ids
}

// addEntry writes a row as it is.
func (k *kong) addEntry(e audit.Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.push(e)
}

func (k *kong) insert(e audit.Entry) string {
	e.RequestID = "r" + strconv.Itoa(k.next)
	k.push(e)
	return e.RequestID
}

func (k *kong) push(e audit.Entry) {
	k.next++
	e.TTL = audit.NoTTL
	e.ID = audit.Identity(&e)
	k.sorted = nil
	k.rows = append(k.rows, krow{e, fmt.Sprintf("%016x", scramble(uint64(k.next)))})
}

// scramble gives numbers in a row keys in no order.
func scramble(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// purge deletes the n oldest rows.
func (k *kong) purge(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	slices.SortStableFunc(k.rows, func(a, b krow) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	k.sorted = nil
	k.rows = slices.Clone(k.rows[min(n, len(k.rows)):])
}

func (k *kong) all() []audit.Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []audit.Entry
	for _, r := range k.rows {
		list = append(list, r.Entry)
	}
	return list
}

func (k *kong) clock() time.Time { return time.Now().Add(k.skew) }

func (k *kong) queries() []audit.Query {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.pages)
}

var errPage = errors.New("500 Internal Server Error")

func (k *kong) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	if err := ctx.Err(); err != nil {
		return audit.Page{}, err
	}
	if k.delay > 0 {
		if err := sleep(ctx, k.delay); err != nil {
			return audit.Page{}, err
		}
	}
	k.mu.Lock()
	k.pages = append(k.pages, q)
	n := len(k.pages)
	k.mu.Unlock()
	if k.hook != nil {
		if err := k.hook(n, q); err != nil {
			return audit.Page{}, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if q.Size < 1 || q.Size > 1000 {
		return audit.Page{}, fmt.Errorf("size %d is out of bounds", q.Size)
	}
	way, compare := k.way(q)
	if k.sorted[way] == nil {
		if k.sorted == nil {
			k.sorted = map[string][]krow{}
		}
		k.sorted[way] = slices.SortedFunc(slices.Values(k.rows), compare)
	}
	rows := k.sorted[way]
	if k.filters && q.After != 0 {
		first := q.After
		if k.exclusive {
			first++
		}
		if i := slices.IndexFunc(rows, func(r krow) bool { return r.Timestamp >= first }); way == "asc" && i >= 0 {
			rows = rows[i:]
		} else {
			rows = slices.DeleteFunc(slices.Clone(rows), func(r krow) bool { return r.Timestamp < first })
		}
	}
	at, err := k.seek(rows, q.Offset, way, compare)
	if err != nil {
		return audit.Page{}, err
	}
	end := min(at+q.Size, len(rows))
	page := audit.Page{}
	for _, r := range rows[at:end] {
		page.Entries = append(page.Entries, r.Entry)
		page.Bytes += 200 + len(r.Payload)
	}
	if k.maxBytes > 0 && page.Bytes > k.maxBytes && q.Size > 1 {
		return audit.Page{}, fmt.Errorf("%w: %d bytes", audit.ErrPageTooLarge, page.Bytes)
	}
	if end < len(rows) {
		if last := rows[end-1]; k.positional {
			page.Offset = fmt.Sprintf("p:%d", end)
		} else {
			page.Offset = fmt.Sprintf("%s:%d:%s", way, last.Timestamp, last.key)
		}
		if k.offset != nil {
			page.Offset = k.offset(n, page.Offset)
		}
	}
	if k.reorder != nil {
		k.reorder(n, q, page.Entries)
	}
	if !k.noDate {
		page.Date = k.clock().Truncate(time.Second)
	}
	if k.cachedID != "" {
		page.RequestIDs = []string{k.cachedID}
	}
	if k.ownReads {
		page.RequestIDs = []string{k.insert(audit.Entry{Timestamp: k.clock().Unix(), Method: "GET", Path: "/audit/requests?size=1"})}
	}
	return page, nil
}

// way is the order in which a query is answered.
func (k *kong) way(q audit.Query) (string, func(a, b krow) int) {
	byKey := func(a, b krow) int { return strings.Compare(a.key, b.key) }
	byTime := func(a, b krow) int { return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), byKey(a, b)) }
	switch {
	case !k.sorts:
		return "none", byKey
	case k.filters && q.Ascending:
		return "asc", byTime
	}
	return "desc", func(a, b krow) int { return byTime(b, a) }
}

func (k *kong) seek(rows []krow, token, way string, compare func(a, b krow) int) (int, error) {
	if token == "" {
		return 0, nil
	}
	bad := fmt.Errorf("%w: 400", audit.ErrBadOffset)
	if k.positional {
		n, err := strconv.Atoi(strings.TrimPrefix(token, "p:"))
		if err != nil || n < 0 {
			return 0, bad
		}
		return min(n, len(rows)), nil
	}
	part := strings.Split(token, ":")
	if len(part) != 3 || part[0] != way {
		return 0, bad
	}
	t, err := strconv.ParseInt(part[1], 10, 64)
	if err != nil {
		return 0, bad
	}
	last := krow{Entry: audit.Entry{Timestamp: t}, key: part[2]}
	i, _ := slices.BinarySearchFunc(rows, last, func(r, last krow) int {
		if compare(r, last) <= 0 {
			return -1
		}
		return 1
	})
	return i, nil
}

// The three ways in which releases of Kong page.
func oldest() *kong    { return &kong{sorts: true, filters: true} }
func newest() *kong    { return &kong{sorts: true} }
func unordered() *kong { return &kong{} }

// ways runs a test once for each way of paging.
func ways(t *testing.T, f func(t *testing.T, newKong func() *kong)) {
	for _, way := range []struct {
		name    string
		newKong func() *kong
	}{
		{"oldest first", oldest},
		{"oldest first, after excludes", func() *kong { return &kong{sorts: true, filters: true, exclusive: true} }},
		{"oldest first, offsets count", func() *kong { return &kong{sorts: true, filters: true, positional: true} }},
		{"newest first", newest},
		{"newest first, offsets count", func() *kong { return &kong{sorts: true, positional: true} }},
		{"unordered", unordered},
		{"unordered, offsets count", func() *kong { return &kong{positional: true} }},
	} {
		t.Run(way.name, func(t *testing.T) { f(t, way.newKong) })
	}
}

// span is n times from a second on, each step seconds after the other.
func span(from int64, n int, step int64) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = from + int64(i)*step
	}
	return list
}
