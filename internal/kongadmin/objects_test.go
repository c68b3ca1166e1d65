package kongadmin

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func TestObjectsPage(t *testing.T) {
	server, address := kong(t, kongtest.Options{Gzip: true})
	now := time.Now().Unix()
	server.AddObjects(
		auditlog.Object{
			ID: "0a1b2c3d-0000-4000-8000-000000000001", RequestID: "QUtUa3RMbRLxomqcL68ilOjjl68h56xr", EntityKey: "5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001",
			DAOName: "routes", Operation: "update", Entity: `{"name":"orders","paths":["/b"]}`, RequestTimestamp: now,
			RBACUserID: new("2e959b45-0053-41cc-9c2c-5458d0964331"), RemovedFromEntity: new("password"),
		},
		auditlog.Object{ID: "0a1b2c3d-0000-4000-8000-000000000002", RequestID: "r", DAOName: "services", Operation: "delete", Entity: `{}`, RequestTimestamp: 1},
	)
	page, err := newClient(t, Options{URL: address}).Objects().Page(context.Background(), audit.Query{Size: 100})
	if err != nil || len(page.Entries) != 2 {
		t.Fatalf("Page: %v, %d rows", err, len(page.Entries))
	}
	if len(page.RequestIDs) != 1 {
		t.Errorf("own reads: %q", page.RequestIDs)
	}
	for i := range page.Entries {
		e := &page.Entries[i]
		switch {
		case e.Object.DAO == "routes":
			want := audit.Object{
				ID: "0a1b2c3d-0000-4000-8000-000000000001", DAO: "routes", Key: "5f0f9a52-7a3f-4ac9-a1c1-2d3a43b3a001", Operation: "update",
				Entity: `{"name":"orders","paths":["/b"]}`, Removed: "password",
			}
			if *e.Object != want || e.ID != "o-"+want.ID || e.RequestID != "QUtUa3RMbRLxomqcL68ilOjjl68h56xr" ||
				e.Timestamp != now || e.RBACUserID != "2e959b45-0053-41cc-9c2c-5458d0964331" || e.TTL < 0 {
				t.Errorf("row: %+v, object %+v", *e, *e.Object)
			}
		case !e.TimestampGuessed: // 1 is not a time
			t.Errorf("timestamp %d of a row from before 3.7 is taken for one", e.Timestamp)
		}
	}
}

// Rows without an id of their own are told apart by what they say, and an entity may be
// an object instead of its text.
func TestOddObjects(t *testing.T) {
	decode := func(row string) audit.Entry {
		page, err := decodePage(`{"data":[`+row+`]}`, objectLog, pageDate, nil)
		if err != nil || len(page.Entries) != 1 {
			t.Fatalf("decodePage(%s): %v", row, err)
		}
		return page.Entries[0]
	}
	a := decode(`{"request_id":"a","dao_name":"routes","entity":{"name":"x"},"ttl":5}`)
	if a.Object.Entity != `{"name":"x"}` {
		t.Errorf("entity %q", a.Object.Entity)
	}
	if again := decode(`{"request_id":"a","dao_name":"routes","entity":{"name":"x"},"ttl":4}`); again.ID != a.ID {
		t.Error("the ID changed from one read to the next")
	}
	if other := decode(`{"request_id":"a","dao_name":"routes","entity":{"name":"y"},"ttl":5}`); other.ID == a.ID {
		t.Error("two rows have one ID")
	}
	if e := decode(`{"id":null,"request_id":null,"entity":null,"dao_name":7,"operation":"update"}`); e.Object.DAO != "7" || !strings.HasPrefix(e.ID, "o-") {
		t.Errorf("row %+v", *e.Object)
	}
}

func TestObjectsRefused(t *testing.T) {
	_, address := kong(t, kongtest.Options{Users: []kongtest.User{{Name: "x", ID: "y", Token: "secret-token", Forbidden: true}}})
	_, err := newClient(t, Options{URL: address, Token: token("secret-token")}).Objects().Page(context.Background(), audit.Query{Size: 1})
	if !audit.NeedsPerson(err) || !strings.Contains(hint(err), "/audit/objects") {
		t.Errorf("error %v, hint %q", err, hint(err))
	}
}
