package cloudwatchtest

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// The page: /, its files, /latest (what is new), and /events/<seq> (one event).

//go:embed page.html page.css page.js
var pageFiles embed.FS

var pageTemplate = template.Must(template.ParseFS(pageFiles, "page.html"))

// pageRows is how many rows the page shows.
const pageRows = 200

// LinkRelay puts a link to the relay's own page on the page.
func (s *Server) LinkRelay(url string) { s.relayPage.Store(&url) }

// pageRow is an event as the table shows it.
type pageRow struct {
	Seq                                      int
	Time, Name, Principal, IP, Status, Delay string
	UID                                      string
	Repeat, Bad                              bool
	Changes                                  []change
	Note                                     string // of the changes
}

// news is what the page asks for: the totals, and the rows since the last time as HTML.
type news struct {
	Counts awstest.Counts `json:"counts"`
	Codes  []string       `json:"codes"` // "ThrottlingException 3"
	Rows   string         `json:"rows"`
	Last   int            `json:"last"` // Seq to go on from
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch p := r.URL.Path; {
	case p == "/":
		n := s.news(0)
		show(w, "page.html", map[string]any{
			"News": n, "Rows": template.HTML(n.Rows), // made by the same template, escaped there
			"Group": s.o.Group, "Region": Region, "CountsOnly": s.o.Lean, "Relay": s.relayPage.Load(),
		})
	case p == "/page.css" || p == "/page.js":
		http.ServeFileFS(w, r, pageFiles, path.Base(p))
	case p == "/latest":
		after, _ := strconv.Atoi(r.URL.Query().Get("after")) // 0 for what is not a number
		awstest.Protocol{ContentType: "application/json"}.Write(w, http.StatusOK, s.news(after))
	case strings.HasPrefix(p, "/events/"):
		s.detail(w, r, strings.TrimPrefix(p, "/events/"))
	default:
		http.NotFound(w, r)
	}
}

// show answers with a page that a template makes.
func show(w http.ResponseWriter, name string, data map[string]any) {
	var b bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w) // a browser that has gone needs no answer
}

// detail shows one event's data, indented: as a page to who follows a link, which has
// a way back, and as JSON to the list and to programs.
func (s *Server) detail(w http.ResponseWriter, r *http.Request, seq string) {
	n, err := strconv.Atoi(seq)
	var e awstest.Event
	s.View(func(events []awstest.Event) {
		if err == nil && n > 0 && n <= len(events) && !events[n-1].Removed {
			e = events[n-1]
		}
	})
	if e.Seq == 0 {
		http.NotFound(w, r)
		return
	}
	v := jsontext.Value(e.Data)
	if v.Indent() != nil {
		v, _ = jsontext.AppendQuote(nil, e.Data)
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(v) // a browser that has gone needs no answer
		return
	}
	show(w, "event", map[string]any{"Seq": n, "Received": e.Received.UTC().Format(time.DateTime), "Text": string(v)})
}

// news returns what happened after a Seq.
func (s *Server) news(after int) news {
	n := news{Counts: s.Counts(), Codes: []string{}}
	for code, times := range n.Counts.Codes {
		n.Codes = append(n.Codes, code+" "+strconv.Itoa(times))
	}
	slices.Sort(n.Codes)
	var rows []pageRow // newest first
	s.View(func(events []awstest.Event) {
		n.Last = len(events)
		for i := len(events) - 1; i >= max(after, 0) && len(rows) < pageRows; i-- {
			if !events[i].Removed {
				rows = append(rows, rowOf(&events[i]))
			}
		}
	})
	var b strings.Builder
	if err := pageTemplate.ExecuteTemplate(&b, "rows", rows); err != nil { // a strings.Builder does not fail
		panic(err)
	}
	n.Rows = b.String()
	return n
}

// field returns the text or the number at a path in an event, or "".
func field(event map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		event, _ = event[name].(map[string]any)
	}
	switch v := event[path[len(path)-1]].(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

// rowOf shows an event in either of the relay's formats, and of any other what it can.
func rowOf(e *awstest.Event) pageRow {
	var d map[string]any
	_ = json.Unmarshal([]byte(e.Data), &d, lax...)
	r := pageRow{
		Seq: e.Seq, UID: e.UID, Repeat: e.Repeat,
		Name: cmp.Or(field(d, "eventName"), field(d, "api", "operation")),
		IP:   cmp.Or(field(d, "sourceIPAddress"), field(d, "src_endpoint", "ip")),
		Principal: cmp.Or(field(d, "userIdentity", "details", "rbac_user_name"), field(d, "userIdentity", "principalId"),
			field(d, "actor", "user", "name"), field(d, "actor", "user", "uid")),
		Status: cmp.Or(field(d, "additionalEventData", "status"), field(d, "errorCode"), field(d, "status_code")),
	}
	r.Changes, r.Note = pageChangesOf([]byte(e.Data))
	code, err := strconv.Atoi(r.Status)
	r.Bad = r.Status != "" && (err != nil || code >= 400)
	at, err := time.Parse(time.RFC3339, field(d, "eventTime"))
	if ms, ok := d["time"].(float64); ok && err != nil {
		at, err = time.UnixMilli(int64(ms)).UTC(), nil
	}
	if err == nil {
		r.Time, r.Delay = at.Format(time.DateTime), delay(e.Received.Sub(at))
	}
	return r
}

// delay writes a duration for a person. eventTime has whole seconds, so tenths
// are as fine as it gets.
func delay(d time.Duration) string {
	switch a := d.Abs(); {
	case a < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case a < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case a < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}
