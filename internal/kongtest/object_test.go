package kongtest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

type objectPage struct {
	Data []struct {
		ID                string  `json:"id"`
		RequestID         string  `json:"request_id"`
		EntityKey         string  `json:"entity_key"`
		DAOName           string  `json:"dao_name"`
		Operation         string  `json:"operation"`
		Entity            string  `json:"entity"`
		RequestTimestamp  int64   `json:"request_timestamp"`
		RemovedFromEntity *string `json:"removed_from_entity"`
		TTL               int64   `json:"ttl"`
	} `json:"data"`
	Next   *string `json:"next"`
	Offset string  `json:"offset"`
}

func getObjects(t *testing.T, s *Server, query string) (p objectPage) {
	t.Helper()
	w := get(t, s, objectsPath+query)
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 {
		t.Fatalf("%d, %v: %s", w.Code, err, w.Body)
	}
	return p
}

// The Admin API's writes leave the new entity, or the deleted one, and what goes with it.
func TestObjectsOfWrites(t *testing.T) {
	s := New(Options{SkipReads: true})
	json1 := []string{"Content-Type", "application/json"}
	do(t, s, "PUT", "/services/orders", `{"host":"a"}`, json1...)
	do(t, s, "PATCH", "/services/orders", `{"host":"b"}`, json1...)
	do(t, s, "POST", "/services/orders/plugins", `{"name":"session","config":{"secret":"x","n":1}}`, json1...)
	do(t, s, "DELETE", "/services/orders", "")
	do(t, s, "DELETE", "/services/orders", "") // is gone
	var got []string
	truth := map[string]string{}
	for _, c := range s.World().Changes() {
		truth[c.Row] = fmt.Sprint(c.Operation, " ", c.DAO, "/", c.Key, " ", c.RequestID)
	}
	for _, o := range getObjects(t, s, "").Data {
		got = append(got, o.Operation+" "+o.DAOName)
		if truth[o.ID] != fmt.Sprint(o.Operation, " ", o.DAOName, "/", o.EntityKey, " ", o.RequestID) || o.TTL <= 0 {
			t.Errorf("%+v, and in truth %s", o, truth[o.ID])
		}
		if o.Operation == "update" && !strings.Contains(o.Entity, `"host":"b"`) {
			t.Errorf("%+v", o)
		}
		if o.DAOName == "plugins" && (strings.Contains(o.Entity, "secret") || text(o.RemovedFromEntity) != "secret") {
			t.Errorf("%+v", o)
		}
		if !slices.Contains(slices.Collect(s.IDs()), o.RequestID) {
			t.Errorf("no request %s", o.RequestID)
		}
	}
	slices.Sort(got)
	want := []string{"create plugins", "create services", "delete plugins", "delete services", "update services"}
	if !slices.Equal(got, want) || len(truth) != len(want) {
		t.Errorf("got %v, and in truth %v", got, truth)
	}
}

// What is lost leaves no rows, and is in the truth all the same.
func TestObjectsThatAreMissing(t *testing.T) {
	s := New(Options{SkipReads: true, LoseObjects: 1})
	do(t, s, "POST", "/services", "")
	s.Update(func(o *Options) { o.LoseObjects, o.LoseRows = 0, 1 })
	do(t, s, "POST", "/routes", "")
	if n := len(s.World().Changes()); n != 2 || s.Len() != 1 {
		t.Errorf("%d changes, %d requests", n, s.Len())
	}
	rows := getObjects(t, s, "").Data
	if len(rows) != 1 || rows[0].DAOName != "routes" { // its request was lost
		t.Fatalf("%+v", rows)
	}
	if s.Purge(time.Now().Add(time.Hour)) != 1 || len(getObjects(t, s, "").Data) != 0 || len(slices.Collect(s.EverObjectIDs())) != 1 {
		t.Error("the row has not gone")
	}
}

// Rows of before an upgrade to a release that filters have 1 as their time.
func TestObjectsOfOldReleases(t *testing.T) {
	s := New(Options{SkipReads: true, Order: Unordered})
	do(t, s, "POST", "/services", "")
	if got := get(t, s, objectsPath).Body.String(); strings.Contains(got, "request_timestamp") {
		t.Errorf("a field that the release does not have: %s", got)
	}
	s.Update(func(o *Options) { o.Order = Filtered })
	if rows := getObjects(t, s, "").Data; rows[0].RequestTimestamp != 1 || rows[0].TTL < 2_500_000 {
		t.Errorf("%+v", rows)
	}
}

// An edit in a workspace has its id in the request's row.
func TestWorkspaces(t *testing.T) {
	s := New(Options{SkipReads: true})
	do(t, s, "POST", "/workspaces", `{"name":"team"}`, "Content-Type", "application/json")
	do(t, s, "POST", "/team/services", "")
	c := s.World().Changes()
	if len(c) != 2 || c[1].Workspace != c[0].Key {
		t.Fatalf("%+v", c)
	}
	for _, row := range all(t, s) {
		if row.RequestID == c[1].RequestID && text(row.Workspace) != c[0].Key {
			t.Errorf("workspace %s, want %s", text(row.Workspace), c[0].Key)
		}
	}
}

// Objects are paged, sorted and filtered as requests are.
func TestObjectPages(t *testing.T) {
	s := New(quiet())
	for i := range 25 {
		s.AddObjects(auditlog.Object{ID: fmt.Sprintf("o%02d", i), RequestID: "r", EntityKey: "k", DAOName: "routes", Operation: "update", Entity: `{"a":1}`, RequestTimestamp: noon.Unix() - 100 + int64(i)})
	}
	s.AddObjects(auditlog.Object{ID: "old", RequestID: "r0", DAOName: "routes", Operation: "create", Entity: `{}`, RequestTimestamp: 1})
	var ids []string
	query := url.Values{"size": {"10"}, "sort_by": {"request_timestamp"}, "sort_desc": {"false"}}
	for {
		p := getObjects(t, s, "?"+query.Encode())
		for _, o := range p.Data {
			ids = append(ids, o.ID)
		}
		if p.Offset == "" {
			break
		}
		if p.Next == nil || !strings.HasPrefix(*p.Next, objectsPath+"?") {
			t.Errorf("next %v", p.Next)
		}
		query.Set("offset", p.Offset)
	}
	if len(ids) != 26 || ids[0] != "old" || ids[25] != "o24" {
		t.Errorf("got %v", ids)
	}
	if p := getObjects(t, s, fmt.Sprintf("?after=%d", noon.Unix()-80)); len(p.Data) != 5 {
		t.Errorf("%d rows after", len(p.Data))
	}
	if s.Len() != 0 {
		t.Error("objects are no requests")
	}
}

// Late rows come apart from each other.
func TestObjectsHeldBack(t *testing.T) {
	s := New(Options{SkipReads: true, RowDelay: time.Hour})
	do(t, s, "PUT", "/services/orders", `{}`, "Content-Type", "application/json")
	if n := len(getObjects(t, s, "").Data); n != 0 || s.LateRows() != 2 {
		t.Errorf("%d rows, %d late", n, s.LateRows())
	}
	s.ReleaseRows()
	if n := len(getObjects(t, s, "").Data); n != 1 || s.Len() != 1 {
		t.Errorf("%d objects, %d requests", n, s.Len())
	}
}
