package kongtest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

func TestOrders(t *testing.T) {
	all := rows(250)
	byTime := idsOf(all)
	after, before := all[50].RequestTimestamp, all[200].RequestTimestamp
	window := url.Values{"after": {fmt.Sprint(after)}, "before": {fmt.Sprint(before)}}
	oldest := url.Values{"sort_by": {"request_timestamp"}, "sort_desc": {"false"}}
	both := url.Values{"sort_by": {"request_timestamp"}, "sort_desc": {"false"},
		"after": {fmt.Sprint(after)}, "before": {fmt.Sprint(before)}}
	for _, c := range []struct {
		name   string
		change func(*Options)
		query  url.Values
		want   []string
	}{
		{"newest first by default", nil, nil, reversed(byTime)},
		{"sort_desc alone changes nothing", nil, url.Values{"sort_desc": {"false"}}, reversed(byTime)},
		{"oldest first", nil, oldest, byTime},
		{"window, newest first", nil, window, reversed(byTime[50:200])},
		{"window, oldest first", nil, both, byTime[50:200]},
		{"after exclusive", func(o *Options) { o.AfterExclusive = true }, both, byTime[51:200]},
		{"nothing after 2100", nil, url.Values{"after": {"4102444800"}, "size": {"1"}}, nil},
		{"positions", func(o *Options) { o.OffsetPosition = true }, both, byTime[50:200]},
		{"newest first ignores filters", func(o *Options) { o.Order = NewestFirst }, both, reversed(byTime)},
		{"newest first ignores nonsense", func(o *Options) { o.Order = NewestFirst }, url.Values{"after": {"x"}, "y": {"z"}}, reversed(byTime)},
		{"unordered ignores filters", func(o *Options) { o.Order = Unordered }, both, sorted(byTime)},
		{"unordered, positions", func(o *Options) { o.Order, o.OffsetPosition = Unordered, true }, nil, sorted(byTime)},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := quiet()
			if c.change != nil {
				c.change(&o)
			}
			s := serverWith(o, all...)
			for _, size := range []string{"", "1", "7", "50", "1000"} {
				q := url.Values{}
				maps.Copy(q, c.query)
				n := 100
				if size != "" {
					q.Set("size", size)
					n, _ = strconv.Atoi(size)
				}
				got, pages := walk(t, s, q)
				same(t, "size "+size, got, c.want)
				if want := max(1, (len(c.want)+n-1)/n); pages != want && !c.query.Has("size") {
					t.Errorf("size %s: %d pages, want %d", size, pages, want)
				}
			}
		})
	}
}

func TestBadQueries(t *testing.T) {
	s := serverWith(quiet(), rows(10)...)
	for _, query := range []string{
		"size=0", "size=1001", "size=-1", "size=", "size=ten", "size=1.5",
		"offset=", "offset=nonsense", "offset=bnVsbA%3D%3D", "offset=W10%3D", "offset=WzEsbnVsbCwxXQ%3D%3D", "offset=WzFd",
		"after=x", "before=2026-09-01", "sort_by=path", "sort_by=request_timestamp&sort_desc=maybe",
	} {
		t.Run(query, func(t *testing.T) {
			w := get(t, s, auditPath+"?"+query)
			var e struct {
				Message string `json:"message"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &e); w.Code != http.StatusBadRequest || err != nil || e.Message == "" {
				t.Errorf("status %d, body %s", w.Code, w.Body)
			}
		})
	}
	// An offset needs escaping, so that a client that forgets it is found out.
	if p := (auditlog.Place{Timestamp: 1, ID: []byte("a")}); !strings.Contains(p.Offset(), "+") {
		t.Error("no character of an offset must be escaped")
	}
	if w := get(t, s, auditPath+"?offset="+url.QueryEscape((&auditlog.Place{Skip: 3}).Offset())); w.Code != http.StatusBadRequest {
		t.Errorf("position where keys are used: status %d", w.Code)
	}
}

func TestNext(t *testing.T) {
	q := url.Values{"size": {"2"}, "after": {"5"}, "sort_by": {"request_timestamp"}}
	for bare, want := range map[bool][]string{false: {"after", "offset", "size", "sort_by"}, true: {"offset"}} {
		o := quiet()
		o.BareNext = bare
		e := getPage(t, serverWith(o, rows(10)...), q)
		u, err := url.Parse(*e.Next)
		if err != nil || u.Path != auditPath {
			t.Fatalf("next = %q: %v", *e.Next, err)
		}
		names := []string{}
		for name := range u.Query() {
			names = append(names, name)
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("next has %v, want %v", names, want)
		}
		if got := u.Query().Get("offset"); got != *e.Offset {
			t.Errorf("next has offset %q, envelope %q", got, *e.Offset)
		}
	}
}

// A keyset offset never expires: what is deleted or inserted meanwhile neither
// hides nor repeats a row. A position does both.
func TestOffsetsWhileRowsChange(t *testing.T) {
	all := rows(40)
	q := url.Values{"size": {"10"}, "sort_by": {"request_timestamp"}, "sort_desc": {"false"}}
	for _, position := range []bool{false, true} {
		o := quiet()
		o.OffsetPosition = position
		s := serverWith(o, all...)
		first := getPage(t, s, q)
		if n := s.Delete(idsOf(all[:10])...); n != 10 {
			t.Fatalf("Delete = %d, want 10", n)
		}
		next := url.Values{"offset": {*first.Offset}}
		maps.Copy(next, q)
		second := getPage(t, s, next).ids()
		want := idsOf(all[10:20])
		if position {
			want = idsOf(all[20:30])
		}
		same(t, fmt.Sprintf("position %v", position), second, want)
	}
}

// Rows without an id have no order of their own and are still each seen once.
func TestRowsWithoutID(t *testing.T) {
	for _, order := range []Order{Filtered, NewestFirst, Unordered} {
		o := quiet()
		o.Order = order
		s := New(o)
		for i := range 95 {
			s.Add(auditlog.Row{RequestTimestamp: noon.Unix(), Path: "/" + strconv.Itoa(i)})
		}
		seen := map[any]int{}
		q := url.Values{"size": {"10"}}
		for {
			e := getPage(t, s, q)
			for _, row := range e.Data {
				if row["request_id"] != "" {
					t.Fatalf("request_id = %v", row["request_id"])
				}
				seen[row["path"]]++
			}
			if e.Offset == nil {
				break
			}
			q.Set("offset", *e.Offset)
		}
		if len(seen) != 95 {
			t.Errorf("order %d: %d rows seen, want 95", order, len(seen))
		}
		for path, n := range seen {
			if n != 1 {
				t.Errorf("order %d: %v seen %d times", order, path, n)
			}
		}
	}
}

func TestTTL(t *testing.T) {
	c := &clock{noon}
	s := New(Options{Now: c.Now, SkipReads: true})
	s.Add(
		auditlog.Row{RequestID: "fresh", RequestTimestamp: noon.Unix()},
		auditlog.Row{RequestID: "old", RequestTimestamp: noon.Unix() - 1000},
		auditlog.Row{RequestID: "ancient", RequestTimestamp: 1_581_617_463},
		auditlog.Row{RequestID: "ahead", RequestTimestamp: noon.Unix() + 86400},
	)
	ttls := func() map[string]any {
		m := map[string]any{}
		for _, row := range getPage(t, s, nil).Data {
			m[row["request_id"].(string)] = row["ttl"]
		}
		return m
	}
	check := func(want map[string]any) {
		t.Helper()
		if got := ttls(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("ttls = %v, want %v", got, want)
		}
	}
	check(map[string]any{"fresh": 2592000., "old": 2591000., "ancient": 2592000., "ahead": 2678400.})
	c.now = c.now.Add(59 * time.Second)
	check(map[string]any{"fresh": 2591941., "old": 2590941., "ancient": 2591941., "ahead": 2678341.})
	c.now = noon.Add(recordTTL*time.Second - 1000*time.Second) // Kong no longer shows the old one
	check(map[string]any{"fresh": 1000., "ancient": 1000., "ahead": 87400.})
}

// What a row holds is what a page shows.
func TestRowFields(t *testing.T) {
	s := New(quiet())
	s.Add(auditlog.Row{
		RequestID: "id1", RequestTimestamp: noon.Unix(), ClientIP: "::1", Method: "POST", Path: "/a?b=\"c\\", Status: 201,
		Workspace: new("w"), Payload: new("{\"x\":\"\u00e9\\n\"}\x01\x7f"), RemovedFromPayload: new("token"), Signature: new("s="),
		RBACUserID: new("u"), RBACUserName: new("名"), RequestSource: new("kong-manager"),
		Extra: map[string]jsontext.Value{"new": jsontext.Value(`{"deep":[1,null]}`), "status": jsontext.Value(`"odd"`)},
		Omit:  []string{"client_ip"},
	})
	const want = `{"request_id":"id1","request_timestamp":1788264000,"ttl":2592000,"method":"POST","path":"/a?b=\"c\\","status":"odd",` +
		`"workspace":"w","payload":"{\"x\":\"é\\n\"}\u0001\u007f","removed_from_payload":"token","signature":"s=","rbac_user_id":"u",` +
		`"rbac_user_name":"名","request_source":"kong-manager","new":{"deep":[1,null]}}`
	var expected map[string]any
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	if got := getPage(t, s, nil).Data[0]; fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("got  %v\nwant %v", got, expected)
	}

	// null where nothing is known, nothing at all where the release has no such field.
	s = New(Options{SkipReads: true, Now: quiet().Now})
	s.Add(auditlog.Row{Omit: []string{"rbac_user_name", "request_id", "request_timestamp", "ttl"}})
	row := getPage(t, s, nil).Data[0]
	for _, name := range []string{"workspace", "payload", "removed_from_payload", "signature", "rbac_user_id", "request_source"} {
		if v, ok := row[name]; !ok || v != nil {
			t.Errorf("%s = %v, %v; want null", name, v, ok)
		}
	}
	for _, name := range []string{"rbac_user_name", "request_id", "request_timestamp", "ttl"} {
		if v, ok := row[name]; ok {
			t.Errorf("%s = %v, want none", name, v)
		}
	}
}

// The store against a plain slice that is sorted for every page.
func TestStoreAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := quiet()
		o.Order = Order(r.IntN(3))
		s := New(o)
		var model []auditlog.Row
		for range 60 {
			switch {
			case r.IntN(4) > 0 || len(model) == 0:
				batch := make([]auditlog.Row, 1+r.IntN(60))
				for i := range batch {
					batch[i] = auditlog.Row{RequestID: entities.RandomID(r.IntN), RequestTimestamp: noon.Unix() - r.Int64N(50), Path: strconv.Itoa(len(model) + i)}
				}
				model = append(model, batch...)
				s.Add(batch...)
			case r.IntN(10) == 0:
				at := noon.Unix() - r.Int64N(50)
				n := len(model)
				model = slices.DeleteFunc(model, func(row auditlog.Row) bool { return row.RequestTimestamp < at })
				if got := s.Purge(time.Unix(at, 0)); got != n-len(model) {
					t.Fatalf("seed %d: Purge = %d, want %d", seed, got, n-len(model))
				}
			default:
				i := r.IntN(len(model))
				if got := s.Delete(model[i].RequestID, "unknown"); got != 1 {
					t.Fatalf("seed %d: Delete = %d, want 1", seed, got)
				}
				model = slices.Delete(model, i, i+1)
			}
		}
		slices.SortFunc(model, func(a, b auditlog.Row) int {
			if a.RequestTimestamp != b.RequestTimestamp && o.Order != Unordered {
				return int(a.RequestTimestamp - b.RequestTimestamp)
			}
			return strings.Compare(a.RequestID, b.RequestID)
		})
		want := idsOf(model)
		if o.Order != Unordered {
			slices.Reverse(want)
		}
		got, _ := walk(t, s, url.Values{"size": {strconv.Itoa(1 + r.IntN(100))}})
		same(t, fmt.Sprintf("seed %d", seed), got, want)
		if s.Len() != len(model) {
			t.Errorf("seed %d: Len = %d, want %d", seed, s.Len(), len(model))
		}
		same(t, "IDs", sorted(slices.Collect(s.IDs())), sorted(idsOf(model)))
	}
}

// Deletions on a scale at which the indexes are made anew.
func TestCompaction(t *testing.T) {
	s := New(quiet())
	s.AddSeq(auditlog.Generate(20_000, 1, auditlog.Mix{To: noon, Plain: true}))
	ids := slices.Collect(s.IDs())
	for i := 0; i < 15_000; i += 1000 {
		if n := s.Delete(ids[i : i+1000]...); n != 1000 {
			t.Fatalf("Delete = %d", n)
		}
	}
	if n := s.Delete(ids[:1000]...); n != 0 {
		t.Errorf("deleted again: %d", n)
	}
	got, _ := walk(t, s, url.Values{"size": {"1000"}})
	same(t, "after deletion", got, reversed(ids[15_000:]))
	same(t, "EverIDs", sorted(slices.Collect(s.EverIDs())), sorted(ids))
	s.Update(func(o *Options) { o.Order = Unordered })
	got, _ = walk(t, s, url.Values{"size": {"1000"}})
	same(t, "unordered", got, sorted(ids[15_000:]))
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{
		"", "size=10", "size=1000&offset=" + url.QueryEscape((&auditlog.Place{Timestamp: noon.Unix(), ID: []byte("a"), Number: 3}).Offset()), "offset=W10=",
		"after=1&before=2&sort_by=request_timestamp&sort_desc=false", "after=9223372036854775807", "before=-9223372036854775808",
		"offset=" + url.QueryEscape((&auditlog.Place{Skip: 7}).Offset()), "offset=" + base64.StdEncoding.EncodeToString([]byte(`[9223372036854775807]`)),
		"size=%zz", ";", "size=1&size=2000",
	} {
		f.Add(q, uint8(0))
	}
	all := rows(50)
	f.Fuzz(func(t *testing.T, query string, mode uint8) {
		o := quiet()
		o.Order = Order(mode % 3)
		o.OffsetPosition = mode&4 != 0
		o.AfterExclusive = mode&8 != 0
		s := serverWith(o, all...)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://kong"+auditPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		w := &sink{header: http.Header{}}
		s.ServeHTTP(w, r)
		if w.status != http.StatusOK && w.status != http.StatusBadRequest {
			t.Fatalf("status %d", w.status)
		}
		if !jsontext.Value(w.body).IsValid(anyBytes) {
			t.Fatalf("not JSON: %s", w.body)
		}
		var e envelope
		if err := json.Unmarshal(w.body, &e, anyBytes); err != nil || len(e.Data) > 100 && !r.URL.Query().Has("size") {
			t.Fatalf("%d rows: %v", len(e.Data), err)
		}
		if w.status == http.StatusOK && (e.Data == nil || (e.Offset == nil) != (e.Next == nil)) {
			t.Fatalf("envelope: %s", w.body)
		}
	})
}

// sink is a response writer that keeps what it gets.
type sink struct {
	header http.Header
	status int
	body   []byte
}

func (w *sink) Header() http.Header { return w.header }
func (w *sink) WriteHeader(s int)   { w.status = s }
func (w *sink) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}
