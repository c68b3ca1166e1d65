package kongtest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

type objectPage struct {
	Data []struct {
		ID               string `json:"id"`
		RequestID        string `json:"request_id"`
		EntityKey        string `json:"entity_key"`
		DAOName          string `json:"dao_name"`
		Operation        string `json:"operation"`
		Entity           string `json:"entity"`
		RequestTimestamp int64  `json:"request_timestamp"`
		TTL              int64  `json:"ttl"`
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
	do(t, s, "POST", "/routes", `{"id":"r","service":{"id":"orders"},"paths":["/a"]}`, json1...)
	do(t, s, "DELETE", "/services/orders", "")
	do(t, s, "DELETE", "/services/orders", "") // is gone
	var got, ids []string
	for _, o := range getObjects(t, s, "").Data {
		got = append(got, fmt.Sprint(o.Operation, " ", o.DAOName, "/", o.EntityKey))
		ids = append(ids, o.RequestID)
		if strings.HasPrefix(o.Operation, "update") && !strings.Contains(o.Entity, `"host":"b"`) || o.ID == "" || o.TTL <= 0 {
			t.Errorf("%+v", o)
		}
	}
	slices.Sort(got)
	want := []string{"create routes/r", "create services/orders", "delete routes/r", "delete services/orders", "update services/orders"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, id := range ids { // each joins a request
		if !slices.Contains(slices.Collect(s.IDs()), id) {
			t.Errorf("no request %s", id)
		}
	}
}

// Objects are paged, sorted and filtered as requests are.
func TestObjectPages(t *testing.T) {
	s := New(quiet())
	for i := range 25 {
		s.AddObjects(Object{ID: fmt.Sprintf("o%02d", i), RequestID: "r", EntityKey: "k", DAOName: "routes", Operation: "update", Entity: `{"a":1}`, RequestTimestamp: noon.Unix() - 100 + int64(i)})
	}
	s.AddObjects(Object{ID: "old", RequestID: "r0", DAOName: "routes", Operation: "create", Entity: `{}`, RequestTimestamp: 1})
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
	s := New(Options{SkipReads: true, HoldRows: true})
	do(t, s, "PUT", "/services/orders", `{}`, "Content-Type", "application/json")
	if n := len(getObjects(t, s, "").Data); n != 0 || s.LateRows() != 2 {
		t.Errorf("%d rows, %d late", n, s.LateRows())
	}
	s.ReleaseRows()
	if n := len(getObjects(t, s, "").Data); n != 1 || s.Len() != 1 {
		t.Errorf("%d objects, %d requests", n, s.Len())
	}
}
