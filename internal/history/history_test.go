package history_test

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/history"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// send makes a request at the emulated Admin API.
func send(tb testing.TB, kong *kongtest.Server, method, path string, body map[string]any) {
	tb.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequestWithContext(tb.Context(), method, path, bytes.NewReader(b))
	r.Header.Set("Content-Type", "application/json")
	kong.ServeHTTP(httptest.NewRecorder(), r)
}

// reader returns a function that reads histories of an emulated Kong.
func reader(tb testing.TB, kong *kongtest.Server) func(entity, name string, since int64) *history.Report {
	tb.Helper()
	server := httptest.NewServer(kong)
	tb.Cleanup(server.Close)
	client, err := kongadmin.New(kongadmin.Options{URL: server.URL})
	if err != nil {
		tb.Fatal(err)
	}
	return func(entity, name string, since int64) *history.Report {
		tb.Helper()
		r, err := history.Read(tb.Context(), history.Options{Requests: client, Objects: client.Objects(), Entity: entity, Name: name, Since: since})
		if err != nil {
			tb.Fatal(err)
		}
		return r
	}
}

// clock is a Kong's clock that a test sets.
type clock struct{ now time.Time }

func (c *clock) at(seconds int) { c.now = time.Unix(1_790_000_000+int64(seconds), 0) }

func lines(t *testing.T, r *history.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWhoChangedIt is the question of the documents: who broke the route, and what was it before?
func TestWhoChangedIt(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/services", map[string]any{"name": "orders", "host": "a"})
	c.at(10)
	send(t, kong, "POST", "/services/orders/routes", map[string]any{"name": "orders", "paths": []any{"/orders"}})
	c.at(100)
	send(t, kong, "PATCH", "/routes/orders", map[string]any{"paths": []any{"/broken"}, "tags": []any{"x"}})
	c.at(101)
	send(t, kong, "PATCH", "/routes/orders", map[string]any{"name": "orders-2"}) // less than 2 s later
	c.at(200)
	send(t, kong, "PATCH", "/routes/orders-2", map[string]any{"strip_path": false})
	c.at(300)
	send(t, kong, "DELETE", "/routes/orders-2", nil)
	c.at(400)
	read := reader(t, kong)

	for _, kind := range []string{"routes", "route"} {
		r := read(kind, "orders", 0)
		var got []string
		for _, e := range r.Events {
			got = append(got, e.Operation+" "+string(e.History))
		}
		// The time of the rename and of what follows a change that it is too near to are not certain.
		want := []string{"delete exact", "update approximate", "update approximate", "update approximate", "create exact"}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	out := lines(t, read("routes", "orders", 0))
	for _, want := range []string{
		"2026-09-21T14:15:00Z  anonymous  from 192.0.2.1  PATCH /routes/orders\n", "  - paths/0: \"/orders\"\n  + paths/0: \"/broken\"\n  + tags: [\"x\"]\n",
		"  approximate: changes less than 2 s apart cannot be put in order\n", "  - strip_path: true\n  + strip_path: false\n",
		"  update routes/orders-2\n  approximate", "What was read of Kong's log begins at 2026-09-21T14:13:20Z.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "+ updated_at: 1790000200") {
		t.Errorf("%s", out)
	}

	// A part of the time: the state before is found all the same.
	r := read("services", "orders", 1_790_000_000+50)
	if len(r.Events) != 0 || len(r.Keys) != 0 {
		t.Errorf("%+v", r)
	}
	r = read("routes", "orders-2", 1_790_000_000+150)
	if len(r.Events) != 2 || r.Events[1].History == changes.Unavailable {
		t.Errorf("%+v", r.Events)
	}
	if r = read("routes", "order", 0); len(r.Events) != 0 || !slices.Contains(r.Similar, "orders") {
		t.Errorf("%+v", r)
	}
}

// What Kong lost or has purged is said.
func TestGaps(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/consumers", map[string]any{"username": "bob"})
	c.at(10)
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "1"})
	c.at(20)
	kong.Update(func(o *kongtest.Options) { o.LoseObjects = 1 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "2"})
	c.at(30)
	kong.Update(func(o *kongtest.Options) { o.LoseObjects, o.LoseRows = 0, 1 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "3"})
	c.at(40)
	kong.Update(func(o *kongtest.Options) { o.LoseRows = 0 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "4"})
	c.at(50)
	kong.Purge(time.Unix(1_790_000_005, 0))
	got := []string{}
	for _, e := range reader(t, kong)("consumers", "bob", 0).Events {
		got = append(got, fmt.Sprint(e.History, "; ", e.Method, "; ", e.Note))
	}
	want := []string{
		"exact; PATCH; ",
		"approximate; ; a request in between left no row; Kong holds no row of the request, which would say who made it and from where",
		"unavailable; PATCH; Kong has no row that says what this request changed",
		"unavailable; PATCH; Kong holds no earlier state",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A request without a row for the service of a route that is called like a list may have
// changed the service.
func TestGapOfANestedEntity(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/services", map[string]any{"name": "orders", "host": "a"})
	c.at(20)
	kong.Add(auditlog.Row{RequestID: "nested", RequestTimestamp: c.now.Unix(), Method: "PATCH", Path: "/routes/users/service", Status: 200})
	c.at(40)
	send(t, kong, "PATCH", "/services/orders", map[string]any{"host": "b"})
	c.at(60)
	for _, e := range reader(t, kong)("services", "orders", 0).Events {
		if e.Operation == "update" && e.History == changes.Approximate && e.Path == "/services/orders" {
			return
		}
	}
	t.Errorf("no approximate update in %s", lines(t, reader(t, kong)("services", "orders", 0)))
}

// TestTruth compares the histories of all entities of a generated world with the truth:
// nothing that is called exact is wrong, nearly all that can be is exact, nothing is
// missing, and no secret shows. Kong's rows are late and come in any order, and its
// release may not filter.
func TestTruth(t *testing.T) {
	for _, order := range []kongtest.Order{kongtest.Filtered, kongtest.NewestFirst, kongtest.Unordered} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			kong, g := world(t, order)
			truth := map[string][]entities.Change{}
			for _, c := range kong.World().Changes() {
				truth[c.DAO+"/"+c.Key] = append(truth[c.DAO+"/"+c.Key], c)
			}
			read := reader(t, kong)
			j := judge{t: t}
			most := slices.SortedFunc(maps.Keys(truth), func(a, b string) int {
				return cmp.Or(cmp.Compare(len(truth[b]), len(truth[a])), strings.Compare(a, b))
			})
			for _, at := range most[:map[kongtest.Order]int{kongtest.Filtered: 30, kongtest.NewestFirst: 4, kongtest.Unordered: 4}[order]] {
				list := truth[at]
				dao, key, _ := strings.Cut(at, "/")
				r := read(dao, key, 0)
				j.entity(list, r.Events)
				out := lines(t, r)
				for _, s := range g.Secrets() {
					if strings.Contains(out, s.Value) {
						t.Fatalf("the secret of %s shows", s.Place)
					}
				}
			}
			t.Logf("%d of %d updates that nobody else came near are exact, %d of %d changes", j.exactAlone, j.alone, j.exact, j.all)
			if order == kongtest.Filtered && (j.alone < 50 || j.exactAlone*10 < j.alone*9) {
				t.Error("too few")
			}
		})
	}
}

func world(t *testing.T, order kongtest.Order) (*kongtest.Server, *entities.Generator) {
	t.Helper()
	kong := kongtest.New(kongtest.Options{
		SkipReads: true, PayloadExclude: []string{}, Order: order, Seed: 1,
		RowDelay: 100 * time.Millisecond, RowDelayMax: 1500 * time.Millisecond,
	})
	g := entities.NewGenerator(kong.World(), 7)
	g.LargeEvery = 500
	var end time.Time
	synctest.Test(t, func(t *testing.T) {
		for range 1500 {
			s := g.Next()
			<-time.After(s.Pause)
			for _, e := range s.Edits {
				send(t, kong, e.Method, e.Path, e.Body)
			}
		}
		<-time.After(time.Minute)
		end = time.Now()
	})
	kong.Update(func(o *kongtest.Options) { o.Now = func() time.Time { return end } })
	return kong, g
}

// judge compares histories with the truth.
type judge struct {
	t                             *testing.T
	all, exact, alone, exactAlone int
}

func (j *judge) entity(truth []entities.Change, events []history.Event) {
	j.t.Helper()
	byRequest := map[string][]history.Event{}
	for _, e := range events {
		byRequest[e.RequestID] = append(byRequest[e.RequestID], e)
	}
	for i, c := range truth {
		j.all++
		of := byRequest[c.RequestID]
		if len(of) != 1 {
			j.t.Fatalf("%s %s/%s is there %d times", c.Operation, c.DAO, c.Key, len(of))
		}
		e := of[0]
		alone := c.Operation == "update" && (i == 0 || c.At.Sub(truth[i-1].At) > 2*time.Second) && (i+1 == len(truth) || truth[i+1].At.Sub(c.At) > 2*time.Second)
		if alone {
			j.alone++
		}
		if e.History != changes.Exact {
			continue
		}
		j.exact++
		if alone {
			j.exactAlone++
		}
		if e.Operation != c.Operation {
			j.t.Fatalf("%s is called %s", c.Operation, e.Operation)
		}
		if err := c.Deny(fields(e.From), fields(e.To), "[secret "); err != nil {
			j.t.Fatalf("%s/%s: %v", c.DAO, c.Key, err)
		}
	}
}

func fields(of []changes.Field) (list []entities.Field) {
	for _, f := range of {
		list = append(list, entities.Field(f))
	}
	return list
}

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
				// What left no row is listed by the names of its time, and of entities that had
				// the name in that time.
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

// A history is harmless for a terminal.
func TestPrintIsClean(t *testing.T) {
	r := &history.Report{Events: []history.Event{{
		UserName: "a\x1b[2Jb", Method: http.MethodGet, Path: "/\x9b\u202e", Change: changes.Change{
			Operation: "update", History: changes.Exact, To: []changes.Field{{Path: "/x", Value: []byte(`"[secret 0123456789abcdef]` + strings.Repeat("y", 500) + "\x7f\"")}},
		},
	}}}
	var b strings.Builder
	if err := r.Print(&b, true); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("\x1b[1m", "", "\x1b[32m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(b.String()); strings.ContainsAny(got, "\x1b\u009b\x7f\u202e") ||
		!strings.Contains(b.String(), "\x1b[32m  + x: \"[secret 01234567]yyy") || !strings.Contains(got, "… (528 bytes)") {
		t.Errorf("%q", b.String())
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
