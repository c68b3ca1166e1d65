package audit

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// idPattern is what PutAuditEvents takes as an id.
var idPattern = regexp.MustCompile(`^[-_A-Za-z0-9]{1,128}$`)

func TestIdentityOfRequestID(t *testing.T) {
	for _, c := range []struct {
		name, id string
		kept     bool
	}{
		{"as Kong writes it", "8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK", true},
		{"UUID", "2e959b45-0053-41cc-9c2c-5458d0964331", true},
		{"one character", "_", true},
		{"as long as can be", strings.Repeat("a", 128), true},
		{"too long", strings.Repeat("a", 129), false},
		{"space", "a b", false},
		{"only space", " ", false},
		{"slash", "a/b", false},
		{"not ASCII", "é", false},
		{"not UTF-8", "a\xff", false},
		{"NUL", "a\x00", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := Identity(&Entry{RequestID: c.id})
			if !idPattern.MatchString(id) {
				t.Errorf("%q does not fit the pattern", id)
			}
			if (id == c.id) != c.kept {
				t.Errorf("got %q", id)
			}
			// A row is known by its request id alone.
			if other := Identity(&Entry{RequestID: c.id, Timestamp: 1, Path: "/x", TTL: 5}); other != id {
				t.Errorf("got %q and %q for the same request id", id, other)
			}
			if Identity(&Entry{RequestID: c.id + "!"}) == id {
				t.Error("another request id has the same identity")
			}
		})
	}
}

// full is an entry without a request id that has everything else.
func full() Entry {
	return Entry{
		Timestamp: 1663013700, ClientIP: "127.0.0.1", Method: "POST", Path: "/services", Status: 201, TTL: 100,
		Workspace: "w", Payload: "{}", RemovedFromPayload: "token", Signature: "c2ln", RBACUserID: "u", RBACUserName: "n",
		RequestSource: "kong-manager", Unknown: `{"a":1}`, KongVersion: "3.3", Verification: Verified,
	}
}

func TestIdentityWithoutRequestID(t *testing.T) {
	e := full()
	base := Identity(&e)
	if !idPattern.MatchString(base) {
		t.Fatalf("%q does not fit the pattern", base)
	}
	// The ledger remembers it: it must not change from one release to the next.
	if want := "e-42053f64eb81b914a7dd0a9374b0f5d9f2169c99"; base != want {
		t.Errorf("got %s, want %s", base, want)
	}
	for name, change := range map[string]func(*Entry){
		"timestamp": func(e *Entry) { e.Timestamp++ },
		"client":    func(e *Entry) { e.ClientIP += "1" },
		"method":    func(e *Entry) { e.Method = "PUT" },
		"path":      func(e *Entry) { e.Path += "/" },
		"status":    func(e *Entry) { e.Status++ },
		"workspace": func(e *Entry) { e.Workspace = "" },
		"payload":   func(e *Entry) { e.Payload += " " },
		"removed":   func(e *Entry) { e.RemovedFromPayload = "" },
		"signature": func(e *Entry) { e.Signature = "" },
		"user":      func(e *Entry) { e.RBACUserID = "v" },
		"user name": func(e *Entry) { e.RBACUserName = "" },
		"source":    func(e *Entry) { e.RequestSource = "" },
		// What was one field's is not the next one's.
		"moved": func(e *Entry) { e.Path, e.Method = e.Path[1:], e.Method+e.Path[:1] },
	} {
		e := full()
		if change(&e); Identity(&e) == base {
			t.Errorf("another %s gives the same identity", name)
		}
	}
	for name, change := range map[string]func(*Entry){
		"ttl":          func(e *Entry) { e.TTL = NoTTL },
		"unknown":      func(e *Entry) { e.Unknown = "" },
		"version":      func(e *Entry) { e.KongVersion = "3.9" },
		"verification": func(e *Entry) { e.Verification = Unsigned },
		"old ID":       func(e *Entry) { e.ID = "x" },
	} {
		e := full()
		if change(&e); Identity(&e) != base {
			t.Errorf("another %s gives another identity", name)
		}
	}
}

func entries() *rapid.Generator[Entry] {
	return rapid.Custom(func(t *rapid.T) Entry {
		word := rapid.SampledFrom([]string{"", "", "a", "1", ":", "a1", "\xff"})
		return Entry{
			RequestID: rapid.SampledFrom([]string{"", "", "", "id1", "id2", "odd id"}).Draw(t, "id"),
			Timestamp: rapid.Int64Range(0, 2).Draw(t, "timestamp"),
			ClientIP:  word.Draw(t, "client"),
			Method:    word.Draw(t, "method"),
			Status:    rapid.IntRange(0, 11).Draw(t, "status"),
			TTL:       rapid.Int64().Draw(t, "ttl"),
		}
	})
}

// Two entries have the same identity only if they are the same row, or equal.
func TestIdentityIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := entries().Draw(t, "a"), entries().Draw(t, "b")
		same := a.RequestID == b.RequestID
		if a.RequestID == "" {
			b.TTL = a.TTL
			same = a == b
		}
		if ia, ib := Identity(&a), Identity(&b); (ia == ib) != same || !idPattern.MatchString(ia) {
			t.Fatalf("%q and %q", ia, ib)
		}
	})
}

// assigned gives copies of the entries their IDs, in pages of n.
func assigned(o *Ordinals, all []Entry, n int) []string {
	var ids []string
	for page := range slices.Chunk(all, n) {
		page = slices.Clone(page)
		for i := range page {
			page[i].ID = Identity(&page[i])
		}
		o.Assign(page)
		for i := range page {
			ids = append(ids, page[i].ID)
		}
	}
	return ids
}

func TestOrdinals(t *testing.T) {
	e := Entry{Timestamp: 10, Path: "/a"}
	id := Identity(&e)
	other := Entry{Timestamp: 10, Path: "/b"}
	named := Entry{Timestamp: 10, RequestID: "id1"}
	var o Ordinals
	got := assigned(&o, []Entry{e, named, e, other, named, e}, 4)
	want := []string{id, "id1", id + "-2", Identity(&other), "id1", id + "-3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := assigned(&Ordinals{}, nil, 1); len(got) != 0 {
		t.Errorf("no entries got %q", got)
	}
}

func TestOrdinalsForget(t *testing.T) {
	row := func(at int64) Entry { return Entry{Timestamp: at} }
	for _, c := range []struct {
		name string
		do   func(*Ordinals)
		want []int64 // seconds that are still known
	}{
		{"forget from the second itself", func(o *Ordinals) { o.DropFrom(11) }, []int64{10}},
		{"forget nothing", func(o *Ordinals) { o.DropFrom(13) }, []int64{10, 11, 12}},
		{"prune up to the second before", func(o *Ordinals) { o.DropBefore(11) }, []int64{11, 12}},
		{"prune all", func(o *Ordinals) { o.DropBefore(13) }, nil},
		{"both", func(o *Ordinals) { o.DropFrom(11); o.DropBefore(11) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o Ordinals
			all := []Entry{row(10), row(11), row(12)}
			first := assigned(&o, all, 3)
			c.do(&o)
			for i, id := range assigned(&o, all, 3) {
				want := first[i]
				if slices.Contains(c.want, all[i].Timestamp) {
					want += "-2"
				}
				if id != want {
					t.Errorf("second %d: got %s, want %s", all[i].Timestamp, id, want)
				}
			}
		})
	}
	var zero Ordinals
	zero.DropFrom(0)
	zero.DropBefore(0)
}

// However a log is cut into pages and in whatever order it comes, its rows get
// the same IDs, no two the same.
func TestOrdinalsKeepIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(entries(), 1, 40).Draw(t, "entries")
		for i := range all {
			if all[i].RequestID != "" {
				all[i].RequestID = "id" + strconv.Itoa(i) // a primary key
			}
		}
		size := rapid.IntRange(1, 40)
		first := assigned(&Ordinals{}, all, size.Draw(t, "size"))
		again := assigned(&Ordinals{}, rapid.Permutation(all).Draw(t, "again"), size.Draw(t, "another size"))
		slices.Sort(first)
		slices.Sort(again)
		if !slices.Equal(first, again) {
			t.Fatalf("read again: %q, first %q", again, first)
		}
		if len(slices.Compact(first)) != len(all) {
			t.Fatalf("%d rows, but %q", len(all), first)
		}
		for _, id := range first {
			if !idPattern.MatchString(id) {
				t.Fatalf("%q does not fit the pattern", id)
			}
		}
	})
}

// A walk that goes on by time reads the second again that it had come to, and
// must find the rows in it that it has seen.
func TestOrdinalsByTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(entries(), 2, 30).Draw(t, "entries")
		slices.SortStableFunc(all, func(a, b Entry) int { return int(a.Timestamp - b.Timestamp) })
		whole := assigned(&Ordinals{}, all, len(all))
		var o Ordinals
		n := rapid.IntRange(1, len(all)-1).Draw(t, "rows read")
		assigned(&o, all[:n], n)
		from := all[n-1].Timestamp
		o.DropFrom(from)
		o.DropBefore(from)
		begin := slices.IndexFunc(all, func(e Entry) bool { return e.Timestamp >= from })
		if got := assigned(&o, all[begin:], len(all)); !slices.Equal(got, whole[begin:]) {
			t.Fatalf("from second %d: %q, want %q", from, got, whole[begin:])
		}
	})
}

// What goes over an entry's texts leaves none out: a text that is not copied keeps its whole
// page in memory, one that is not counted has no bound, and an encoder refuses one that is
// not UTF-8.
func TestEveryText(t *testing.T) {
	empty := Entry{Object: &Object{}}
	e := Entry{Object: &Object{}, Verification: Verified, Timestamp: 1, TTL: 2, Status: 3}
	page := strings.Repeat("1234567\xff", 100)
	begin := uintptr(unsafe.Pointer(unsafe.StringData(page)))
	texts, bytes := map[string]*string{}, 0
	for _, v := range []reflect.Value{reflect.ValueOf(&e).Elem(), reflect.ValueOf(e.Object).Elem()} {
		for i := range v.NumField() {
			if text, ok := reflect.TypeAssert[*string](v.Field(i).Addr()); ok {
				*text = page[bytes : bytes+8]
				texts[v.Type().Name()+"."+v.Type().Field(i).Name] = text
				bytes += 8
			}
		}
	}
	if got, want := e.Size(), empty.Size()+bytes; got != want {
		t.Errorf("size %d, want %d", got, want)
	}
	was := e
	e.Detach()
	was.Object = e.Object
	if e != was {
		t.Errorf("%+v, was %+v", e, was)
	}
	for name, text := range texts {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(*text))); at >= begin && at < begin+uintptr(len(page)) {
			t.Errorf("%s is still a part of its page", name)
		}
	}
	e.MakeValid()
	for name, text := range texts {
		if *text != "1234567\uFFFD" {
			t.Errorf("%s is %q", name, *text)
		}
	}
}

func TestIsAuditRead(t *testing.T) {
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/audit/requests?size=1", true},
		{"GET", "/audit/requests?size=1&after=5", true},
		{"GET", "/audit/requests?after=5&offset=a%3D&size=1000&sort_by=request_timestamp&sort_desc=false", true},
		{"GET", "/audit/objects?offset=x&size=100", true},
		{"GET", "/default/audit/requests?size=1", true},
		{"GET", "/audit/requests", false},
		{"GET", "/audit/requests?", false},
		{"GET", "/audit/requests?size=", false},
		{"GET", "/audit/requests?size=1&before=5", false},
		{"GET", "/audit/requests?request_id=x&size=1", false},
		{"GET", "/audit/requests/?size=1", false},
		{"GET", "/audit/requestsx?size=1", false},
		{"GET", "/audit/requests/x?size=1", false},
		{"GET", "/audit/x?size=1", false},
		{"GET", "/AUDIT/requests?size=1", false},
		{"GET", "/audit%2Frequests?size=1", false},
		{"GET", "/audit/requests%2F?size=1", false},
		{"GET", "//audit/requests?size=1", false},
		{"GET", "/default//audit/requests?size=1", false},
		{"GET", "/default/audit/requests/?size=1", false},
		{"GET", "/default/audit/requestsx?size=1", false},
		{"GET", "/x?/audit/requests?size=1", false},
		{"GET", "audit/requests?size=1", false},
		{"GET", "/audit/", false},
		{"GET", "/audit", false},
		{"GET", "/auditor/requests", false},
		{"GET", "/", false},
		{"GET", "", false},
		{"GET", "/services?name=/audit/requests", false},
		{"GET", "/consumers/audit/acls", false},
		{"GET", "/a/b/audit/requests?size=1", false},
		{"POST", "/audit/requests?size=1", false},
		{"HEAD", "/audit/requests?size=1", false},
		{"get", "/audit/requests?size=1", false},
	} {
		if got := (&Entry{Method: c.method, Path: c.path}).IsAuditRead(); got != c.want {
			t.Errorf("%s %s: %v", c.method, c.path, got)
		}
	}
}
