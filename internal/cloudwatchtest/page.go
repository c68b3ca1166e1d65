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
)

// The page: /, its files, /live (Server-Sent Events), /latest (the same for
// browsers that cannot hold a stream), and /events/<seq> (one event).

//go:embed page.html page.css page.js
var pageFiles embed.FS

var pageTemplate = template.Must(template.ParseFS(pageFiles, "page.html"))

const (
	pageRows = 200                    // rows that the page shows
	pageTick = 250 * time.Millisecond // how often a stream looks for news
)

// LinkRelay puts a link to the relay's own page on the page.
func (s *Server) LinkRelay(url string) { s.relayPage.Store(&url) }

// pageRow is an event as the table shows it.
type pageRow struct {
	Seq                                      int
	Time, Name, Principal, IP, Status, Delay string
	UID                                      string
	Repeat, Bad                              bool
	Changes                                  []pageChange
	Note                                     string // of the changes
}

// news is what a stream sends: the totals, and the rows since the last time as HTML.
type news struct {
	Counts Counts   `json:"counts"`
	Codes  []string `json:"codes"` // "ThrottlingException 3"
	Rows   string   `json:"rows"`
	Last   int      `json:"last"` // Seq to go on from
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch p := r.URL.Path; {
	case p == "/":
		s.index(w)
	case p == "/page.css" || p == "/page.js":
		http.ServeFileFS(w, r, pageFiles, path.Base(p))
	case p == "/live":
		s.live(w, r)
	case p == "/latest":
		after, err := strconv.Atoi(r.URL.Query().Get("after"))
		if err != nil {
			after = 0
		}
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(s.news(after).encode()) // a browser that has gone needs no answer
	case strings.HasPrefix(p, "/events/"):
		s.detail(w, r, strings.TrimPrefix(p, "/events/"))
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) index(w http.ResponseWriter) {
	n := s.news(0)
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, map[string]any{
		"News": n, "Rows": template.HTML(n.Rows), // made by the same template, escaped there
		"Group": s.o.Group, "Region": Region, "CountsOnly": s.o.Lean, "Relay": s.relayPage.Load(),
	})
	if err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w) // a browser that has gone needs no answer
}

// live streams news until the browser goes or the server shuts down.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.Atoi(r.URL.Query().Get("after"))
	if err != nil {
		after = 0
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(pageTick)
	defer tick.Stop()
	var sent []byte
	for {
		n := s.news(after)
		after = n.Last
		if b := n.encode(); !bytes.Equal(b, sent) {
			sent = b
			if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// detail shows one event's data, indented: as a page to who follows a link, which has
// a way back, and as JSON to the list and to programs.
func (s *Server) detail(w http.ResponseWriter, r *http.Request, seq string) {
	n, err := strconv.Atoi(seq)
	var e Event
	s.View(func(events []Event) {
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
	var b bytes.Buffer
	err = pageTemplate.ExecuteTemplate(&b, "event", map[string]any{
		"Seq": n, "Received": e.Received.UTC().Format(time.DateTime), "Text": string(v),
	})
	if err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
}

func (n news) encode() []byte {
	b, err := json.Marshal(n)
	if err != nil { // numbers and strings always encode
		panic(err)
	}
	return b
}

// news returns what happened after a Seq.
func (s *Server) news(after int) news {
	n := news{Counts: s.Counts(), Codes: []string{}}
	for code, times := range n.Counts.Codes {
		n.Codes = append(n.Codes, code+" "+strconv.Itoa(times))
	}
	slices.Sort(n.Codes)
	var rows []pageRow // newest first
	s.View(func(events []Event) {
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

// shownEvent is what the page shows of an event, in either of the relay's formats.
type shownEvent struct {
	EventName       string `json:"eventName"`
	EventTime       string `json:"eventTime"`
	SourceIPAddress string `json:"sourceIPAddress"`
	ErrorCode       string `json:"errorCode"`
	UserIdentity    struct {
		PrincipalID string `json:"principalId"`
		Details     struct {
			Name jsontext.Value `json:"rbac_user_name"`
		} `json:"details"`
	} `json:"userIdentity"`
	AdditionalEventData struct {
		Status jsontext.Value `json:"status"`
	} `json:"additionalEventData"`
	ResponseElements jsontext.Value `json:"responseElements"`

	Time  int64 `json:"time"`
	Actor struct {
		User struct {
			UID  string `json:"uid"`
			Name string `json:"name"`
		} `json:"user"`
	} `json:"actor"`
	API struct {
		Operation string `json:"operation"`
	} `json:"api"`
	StatusCode string `json:"status_code"`
	Source     struct {
		IP string `json:"ip"`
	} `json:"src_endpoint"`
}

func rowOf(e *Event) pageRow {
	var d shownEvent
	// What does not decode stays empty: the page shows what it can.
	_ = json.Unmarshal([]byte(e.Data), &d, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	r := pageRow{
		Seq: e.Seq, UID: e.UID, Repeat: e.Repeat,
		Name: cmp.Or(d.EventName, d.API.Operation), IP: cmp.Or(d.SourceIPAddress, d.Source.IP),
		Principal: cmp.Or(d.UserIdentity.PrincipalID, d.Actor.User.Name, d.Actor.User.UID),
		Status:    cmp.Or(strings.Trim(string(d.AdditionalEventData.Status), `"`), d.ErrorCode, d.StatusCode),
	}
	r.Changes, r.Note = pageChangesOf(d.ResponseElements)
	var name string
	if json.Unmarshal(d.UserIdentity.Details.Name, &name) == nil && name != "" {
		r.Principal = name
	}
	code, err := strconv.Atoi(r.Status)
	r.Bad = r.Status != "" && (err != nil || code >= 400)
	at, err := time.Parse(time.RFC3339, d.EventTime)
	if err != nil && d.Time != 0 {
		at, err = time.UnixMilli(d.Time).UTC(), nil
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
