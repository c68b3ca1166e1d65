package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// The history since a time is the end of the whole history, and says as much of each change,
// although of what is older only what it takes is read.
func TestSince(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	random := rand.New(rand.NewPCG(1, 2))
	var times []int
	for second, last := 0, 20*24*3600; second < last; {
		c.at(second)
		if kong.Update(func(o *kongtest.Options) { o.LoseObjects, o.LoseRows = 0, 0 }); random.IntN(30) == 0 {
			kong.Update(func(o *kongtest.Options) { o.LoseObjects = float64(random.IntN(2)); o.LoseRows = 1 - o.LoseObjects })
		}
		name := fmt.Sprint("service-", random.IntN(4))
		switch random.IntN(12) {
		case 0:
			send(t, kong, "DELETE", "/services/"+name, nil)
		case 1:
			send(t, kong, "POST", "/services", map[string]any{"name": name, "host": "a"})
		case 2:
			send(t, kong, "PATCH", "/services/"+name, map[string]any{"name": fmt.Sprint("service-", random.IntN(4))})
		default:
			send(t, kong, "PUT", "/services/"+name, map[string]any{"host": fmt.Sprint("host-", second)})
		}
		times = append(times, second)
		second += []int{0, 1, 2, 5, 100, 5000, 20_000, 50_000}[random.IntN(8)]
	}
	c.at(20*24*3600 + 100)
	read := reader(t, kong)
	for _, name := range []string{"service-0", "service-1"} {
		whole := read("services", name, 0)
		exact := 0
		for range 40 {
			since := 1_790_000_000 + int64(times[random.IntN(len(times))]+random.IntN(3)-1)
			part := read("services", name, since)
			keys := map[string]bool{}
			for _, key := range part.Keys {
				keys[key] = true
			}
			want := []string{}
			for _, e := range whole.Events {
				// A request without a row is listed if its path ends in the name. A row is listed
				// if its entity had the name at some time since.
				if at, _ := time.Parse(time.RFC3339, e.Time); at.Unix() >= since && (keys[e.Key] || e.Key == "" && strings.HasSuffix(e.Path, "/"+name)) {
					want = append(want, fmt.Sprint(e))
				}
			}
			got := []string{}
			for _, e := range part.Events {
				if e.Key != "" || strings.HasSuffix(e.Path, "/"+name) {
					got = append(got, fmt.Sprint(e))
				}
				if e.History == changes.Exact && e.Operation == changes.Update {
					exact++
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s since %d:\n%s\nwant\n%s", name, since, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		if exact < 100 {
			t.Errorf("%d exact updates", exact)
		}
	}
}

// A request whose row is a little newer than that of what it changed has left that row, although
// the time asked for lies between the two.
func TestSinceBetweenTwoRows(t *testing.T) {
	c := clock{}
	c.at(100)
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	at := c.now.Unix() - 50
	kong.AddObjects(auditlog.Object{
		ID: "1", RequestID: "a", EntityKey: "key", DAOName: "services", Operation: "update", RequestTimestamp: at - 1, Entity: `{"id":"key","name":"orders"}`,
	})
	kong.Add(auditlog.Row{RequestID: "a", RequestTimestamp: at, Method: "PATCH", Path: "/services/orders", Status: 200})
	if r := reader(t, kong)("services", "orders", at); len(r.Events) != 0 {
		t.Errorf("%+v", r.Events)
	}
}

// Where a page does not keep the order, what was read in parts is read once more, and nothing is
// missing or there twice.
func TestOrderThatBreaks(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	for i := range 5000 {
		c.at(10 * i)
		kong.AddObjects(auditlog.Object{
			ID: fmt.Sprint(i), RequestID: fmt.Sprint(i), EntityKey: fmt.Sprint("key-", i%1000), DAOName: "services", Operation: "update", RequestTimestamp: c.now.Unix(),
			Entity: fmt.Sprintf(`{"id":"key-%d","name":"service-%d","port":%d}`, i%1000, i%1000, i),
		})
		kong.Add(auditlog.Row{RequestID: fmt.Sprint(i), RequestTimestamp: c.now.Unix(), Method: "PATCH", Path: fmt.Sprint("/services/service-", i%1000), Status: 200, RBACUserName: new("amy")})
	}
	c.at(50_100)
	for broken := range int64(6) {
		var pages atomic.Int64
		kong.Update(func(o *kongtest.Options) {
			o.OnPage = func(kongtest.Request) kongtest.Fault { return kongtest.Fault{Reorder: pages.Add(1) == broken+2} } // the first one is the probe
		})
		r := reader(t, kong)("services", "service-42", 0)
		got := []string{}
		for _, e := range r.Events {
			got = append(got, fmt.Sprint(e.RequestID, " ", e.UserName, " ", e.History))
		}
		if want := []string{"4042 amy exact", "3042 amy exact", "2042 amy exact", "1042 amy exact", "42 amy unavailable"}; !slices.Equal(got, want) {
			t.Errorf("page %d: %q, want %q", broken, got, want)
		}
	}
}

// A kind of entity with more rows than are kept is read once more.
func TestManyRowsOfAKind(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	large := []any{strings.Repeat("x", 100_000)}
	for i := range 60 {
		c.at(10 * i)
		send(t, kong, "POST", "/services", map[string]any{"name": fmt.Sprint("other-", i), "tags": large})
		switch i {
		case 5:
			send(t, kong, "POST", "/services", map[string]any{"name": "before", "host": "a"})
		case 20:
			send(t, kong, "PATCH", "/services/before", map[string]any{"name": "orders"})
		case 50:
			send(t, kong, "PATCH", "/services/orders", map[string]any{"host": "b"})
		}
	}
	c.at(1000)
	for _, since := range []int64{0, 1_790_000_000 + 300} {
		var got []string
		for _, e := range reader(t, kong)("services", "orders", since).Events {
			got = append(got, fmt.Sprint(e.Operation, " ", e.Name, " ", e.History, " ", len(e.From)))
		}
		want := []string{"update orders exact 2", "update orders exact 2", "create before exact 0"}
		if since > 0 {
			want = want[:1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("since %d: %q", since, got)
		}
	}
}

// The log of changed entities is read once, unless an entity was renamed and an earlier row
// of it was not kept: then it is read again, and none of its rows is missing.
func TestRowsAreReadOnce(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	const others = 6000
	add := func(i int, operation, name string) {
		kong.AddObjects(auditlog.Object{
			ID: fmt.Sprint(operation, i), RequestID: fmt.Sprint(operation, i), EntityKey: fmt.Sprint("key-", i), DAOName: "services", Operation: operation, RequestTimestamp: c.now.Unix(),
			Entity: fmt.Sprintf(`{"id":"key-%d","name":"%s","tags":["%s"]}`, i, name, strings.Repeat("x", 450)),
		})
	}
	for i := range others {
		c.at(10 * i)
		add(i, "create", fmt.Sprint("other-", i))
	}
	c.at(10 * others)
	// Rows beyond maxHeld are not kept. Which ones depends on how far each part of the log has
	// been read by then.
	const renamed, every = others / 500, 500
	for i := range renamed {
		add(i*every, "update", "orders")
	}
	c.at(10*others + 100)
	read := reader(t, kong)
	shown := func(name string, events int) (rows int) {
		before := len(kong.Requests())
		if r := read("services", name, 0); len(r.Events) != events {
			t.Errorf("%s: %d events", name, len(r.Events))
		}
		for _, r := range kong.Requests()[before:] {
			if r.Path == "/audit/objects" {
				rows += r.Rows
			}
		}
		return rows
	}
	if n := shown("other-5950", 1); n >= others*2 {
		t.Errorf("%d rows were read of %d", n, others)
	}
	shown("orders", 2*renamed) // all of them, read twice unless the last part of the log was read first
}
