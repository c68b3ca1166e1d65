package auditlog

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// Mix shapes the rows that Generate makes. Its zero value is a mix of what has
// been seen in the field.
type Mix struct {
	// From and To bound the timestamps; To is now by default, From 29 days before To.
	From, To time.Time
	// Plain leaves out everything odd.
	Plain bool
	// LargeEvery is after how many rows one has a payload of LargeBytes: 5000
	// rows and 300,000 bytes by default, negative for none. Plain rows have none
	// unless it is set.
	LargeEvery, LargeBytes int
	// NoIDEvery is after how many rows one has no request id; 0 for none.
	NoIDEvery int
}

// Generate yields n rows, oldest first: the same for the same arguments, if the
// mix has both times. Two servers that are to differ need two seeds.
func Generate(n int, seed uint64, m Mix) iter.Seq[Row] {
	if m.To.IsZero() {
		m.To = time.Now()
	}
	if m.From.IsZero() {
		m.From = m.To.Add(-29 * 24 * time.Hour)
	}
	if m.LargeEvery == 0 && !m.Plain {
		m.LargeEvery = 5000
	}
	if m.LargeBytes == 0 {
		m.LargeBytes = 300_000
	}
	return func(yield func(Row) bool) {
		g := generator{Rand: rand.New(rand.NewPCG(seed, uint64(n))), Mix: m}
		for i := range n {
			if !yield(g.row(i, n)) {
				return
			}
		}
	}
}

type generator struct {
	*rand.Rand
	Mix
	last  int64 // timestamp of the row before
	burst int   // rows that still share it
}

// AdminID is the id of the user who is called admin.
const AdminID = "2e959b45-0053-41cc-9c2c-5458d0964331"

var (
	people = []struct{ id, name string }{
		{AdminID, "admin"},
		{"7a1c0a52-3a0e-4b1e-9a53-3c3f5d1d8f10", "deck"},
		{"b4c9b6f8-0d5f-4f36-8a0f-6e0f8b7a2c11", "émilie"},
		{"1f0d5a3e-5b77-4a9e-8d2b-9c1e7f6a4d12", "platform-ci"},
		{"c8e2d7b1-9f44-4c0b-b7a6-2d8f1e0c3b13", "運用"},
	}
	workspaces = []string{entities.DefaultWorkspace, "cca82c73-2365-441b-8860-9e074d93b205", "5d3f9a60-7e0b-4d0e-8f5c-1b2a3c4d5e6f"}
	kinds      = []string{"services", "routes", "consumers", "plugins", "upstreams", "certificates", "event-hooks"}
	addresses  = []string{"127.0.0.1", "172.31.76.246", "10.0.4.17", "192.168.1.20", "2001:db8::17"}
)

func (g *generator) row(i, n int) Row {
	from, to := g.From.Unix(), g.To.Unix()
	if g.burst > 0 {
		g.burst--
	} else {
		g.last = max(g.last, from+int64(float64(to-from)*float64(i)/float64(n)))
		if g.IntN(50) == 0 {
			g.burst = g.IntN(30) // a decK sync
		}
	}
	person := people[g.IntN(len(people))]
	row := Row{
		RequestID:        g.id(),
		RequestTimestamp: g.last,
		ClientIP:         addresses[g.IntN(len(addresses))],
		Method:           "GET",
		Path:             "/" + kinds[g.IntN(len(kinds))],
		Status:           200,
		Workspace:        new(workspaces[g.IntN(len(workspaces))]),
		RBACUserID:       new(person.id),
		RBACUserName:     new(person.name),
	}
	switch g.IntN(10) {
	case 0, 1, 2:
		row.Path += "?size=" + strconv.Itoa(1+g.IntN(1000))
	case 3, 4:
		row.Method, row.Status = "POST", 201
		row.Payload = new(g.object())
	case 5:
		row.Method = []string{"PUT", "PATCH"}[g.IntN(2)]
		row.Path += "/" + g.id()[:8]
		row.Payload = new(g.object())
		row.RemovedFromPayload = new("password,token")
	case 6:
		row.Method, row.Status = "DELETE", 204
		row.Path += "/" + g.id()[:8]
	case 7:
		row.Status = []int{400, 401, 403, 404, 409, 500}[g.IntN(6)]
	case 8:
		row.RequestSource = new("kong-manager")
	}
	if !g.Plain {
		g.odd(&row)
	}
	if g.LargeEvery > 0 && i%g.LargeEvery == g.LargeEvery/2 {
		row.Method, row.Status, row.Path = "POST", 201, "/certificates"
		row.Payload = new(g.large())
	}
	if g.NoIDEvery > 0 && i%g.NoIDEvery == 0 {
		row.RequestID = ""
	}
	return row
}

// odd makes about half of the rows odd in one way.
func (g *generator) odd(row *Row) {
	switch n := g.IntN(40); n {
	case 0:
		row.Path = ""
	case 1:
		row.Path = "/"
	case 2, 3:
		row.Omit = []string{"ttl"}
	case 4, 5, 6:
		row.RBACUserID, row.RBACUserName = nil, nil
	case 7:
		row.RBACUserID, row.RBACUserName, row.Workspace = nil, nil, nil
		row.Omit = []string{"rbac_user_name", "request_source", "removed_from_payload"}
	case 8, 9, 10, 11:
		row.Payload = new([]string{
			`[{"name":"a"},{"name":"b"},3,null]`, "plain text, neither \"object\" nor array\n\tof any kind \\ at all",
			`{"name":"Zürich ✓ 東京 😀","tags":["\u00e9","\ud83d\ude00"],"n":12345678901234567890}`, "",
		}[n-8])
	case 12:
		row.Payload = new([]string{"null", "true", "42", `"text"`, "{}", "[]", "{"}[g.IntN(7)])
	case 13:
		row.Path = "/services/%ff%00?name=%E2%9C%93&a=1&a=2&empty="
	case 14:
		row.Extra = map[string]jsontext.Value{"trace_id": jsontext.Value(`"` + g.id() + `"`)}
	case 15:
		row.Extra = map[string]jsontext.Value{
			"rbac_roles": jsontext.Value(`["admin",{"nested":{"deep":[1,2.5,-3e10,true,null]}}]`),
			"latency_ms": jsontext.Value(strconv.Itoa(g.IntN(1000))),
		}
	case 16:
		row.Path = "/services//?size=100"
	case 17:
		row.Method, row.Path, row.Status = "OPTIONS", "/auth", 204
	case 18:
		row.Path = "/consumers?" + strings.Repeat("custom_id=x&", 200)
	case 19:
		row.Signature = new("bm90IGEgc2lnbmF0dXJlIGF0IGFsbA==")
	}
}

func (g *generator) id() string { return entities.RandomID(g.IntN) }

func (g *generator) object() string {
	return fmt.Sprintf(`{"name":"svc-%d","host":"h%d.internal","port":%d,"tags":["team-%d"]}`,
		g.IntN(100_000), g.IntN(1000), 1+g.IntN(65_535), g.IntN(20))
}

func (g *generator) large() string {
	var b strings.Builder
	b.Grow(g.LargeBytes)
	b.WriteString(`{"cert":"`)
	for b.Len() < g.LargeBytes-2 {
		b.WriteString(g.id()[:min(32, g.LargeBytes-2-b.Len())])
	}
	b.WriteString(`"}`)
	return b.String()
}
