package daemon

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"html/template"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
)

//go:embed page.html
var pageText string

// pageData is what the page shows.
type pageData struct {
	app.Status
	Nonce    string // of the page's own style and script
	Sentence string
	Objects  bool // whether events say what changed
	Changed  []changedEntity
	Bars     []bar
	Lines    []float64
}

// bar is ten minutes of the chart.
type bar struct {
	X, Y, H int
	Class   string
	Title   string
}

const (
	chartHeight = 120
	chartMost   = 24 * 3600 // seconds at the chart's top
)

// chartY returns how high so many seconds are in the chart, on a logarithmic scale.
func chartY(seconds float64) float64 {
	return chartHeight * math.Log1p(min(seconds, chartMost)) / math.Log1p(chartMost)
}

// bars returns the chart of the last day.
func bars(now time.Time, points []Behind) (list []bar) {
	first := now.Truncate(freshnessStep).Add(freshnessStep - freshnessKeep)
	for _, p := range points {
		x := int(p.At.Sub(first) / freshnessStep)
		if x < 0 {
			continue
		}
		h := max(3, int(chartY(p.Seconds)))
		b := bar{X: 10 * x, Y: chartHeight - h, H: h, Class: "b0"}
		switch {
		case p.Seconds >= 600:
			b.Class = "b2"
		case p.Seconds >= 10:
			b.Class = "b1"
		}
		b.Title = p.At.UTC().Format("15:04 UTC") + ": " + (time.Duration(p.Seconds) * time.Second).String()
		list = append(list, b)
	}
	return list
}

// newPage returns the template of the page.
func newPage() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"clock": func(t time.Time) string {
			if t.IsZero() {
				return "–"
			}
			if t = t.UTC(); t.Format(time.DateOnly) == time.Now().UTC().Format(time.DateOnly) {
				return t.Format("15:04:05 UTC") // without the day if it is today
			}
			return t.Format("2006-01-02 15:04:05 UTC")
		},
		"outageEnd": func(o audit.Outage) string {
			if time.Since(o.Seen) < app.OutageStale {
				return "now"
			}
			return "unknown: the relay was stopped during it"
		},
	}).Parse(pageText))
}

// page answers with the page for people.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	data := pageData{Status: s.status(r.Context()), Nonce: rand.Text(), Objects: s.app.Settings.Objects, Changed: s.changed.last()}
	data.Sentence = strings.ToUpper(data.Verdict[:1]) + data.Verdict[1:]
	data.Bars = bars(data.At, s.freshness.list())
	for _, seconds := range []float64{10, 60, 600, 3600, 36000} {
		data.Lines = append(data.Lines, math.Round(10*(chartHeight-chartY(seconds)))/10)
	}
	var body bytes.Buffer
	if err := s.template.Execute(&body, &data); err != nil {
		s.log.Error("page not made", "err", err)
		http.Error(w, "page not made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+data.Nonce+"'; script-src 'nonce-"+data.Nonce+
		"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(body.Bytes()) // a client that went away
}
