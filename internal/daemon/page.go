package daemon

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
)

//go:embed page.html
var pageText string

type pageData struct {
	app.Status
	Sentence string
	Cause    string // of the first failure, if that is not part of the sentence
	UpTo     string // how far everything is delivered nevertheless
	Objects  bool   // whether events say what changed
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

func bars(now time.Time, points []health.Behind) (list []bar) {
	first := now.Truncate(health.FreshnessStep).Add(health.FreshnessStep - health.FreshnessKept)
	for _, p := range points {
		x := int(p.At.Sub(first) / health.FreshnessStep)
		if x < 0 {
			continue
		}
		h := max(3, int(chartY(p.Wait.Seconds())))
		b := bar{X: 10 * x, Y: chartHeight - h, H: h, Class: "b0"}
		switch {
		case p.Wait >= 10*time.Minute:
			b.Class = "b2"
		case p.Wait >= 10*time.Second:
			b.Class = "b1"
		}
		b.Title = p.At.UTC().Format("15:04 UTC") + ": " + p.Wait.String()
		list = append(list, b)
	}
	return list
}

func capital(s string) string {
	first := min(1, len(s))
	return strings.ToUpper(s[:first]) + s[first:]
}

// newPage returns the template of the page, and the policy that lets it use its own
// style and script, ask the relay again, and load nothing else from anywhere.
func newPage() (page *template.Template, policy string) {
	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"clock": func(t time.Time) string {
			if t.IsZero() {
				return "–"
			}
			return app.ShortTime(time.Now(), t)
		},
		"short":      func(t time.Time) string { return strings.TrimSuffix(app.ShortTime(time.Now(), t), " UTC") },
		"outageDays": func() int { return int(app.ShownOutages.Hours() / 24) },
		"outageEnd": func(o audit.Outage) string {
			switch {
			case o.Lasts(time.Now()):
				return "now"
			case o.Dependency == audit.UnknownDependency:
				return "unknown"
			}
			return "unknown: the relay was stopped during it"
		},
	}).Parse(pageText))
	hash := func(tag string) string {
		_, after, _ := strings.Cut(pageText, "<"+tag+">")
		text, _, _ := strings.Cut(after, "</"+tag+">")
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return page, "default-src 'none'; style-src " + hash("style") + "; script-src " + hash("script") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

func (s *server) renderPage(ctx context.Context, w io.Writer) error {
	data := pageData{Status: s.status(ctx), Objects: s.app.Settings.Objects, Changed: s.changed.all()}
	data.Sentence = capital(data.Verdict)
	if what, rest, ok := strings.Cut(data.Verdict, ": "); ok && data.Failing {
		if i := strings.LastIndex(rest, "; "); i >= 0 {
			data.Sentence, data.Cause, data.UpTo = capital(what), rest[:i], capital(rest[i+len("; "):])
		}
	}
	data.Bars = bars(data.At, s.freshness.List())
	for _, seconds := range []float64{10, 60, 600, 3600, 36000} {
		data.Lines = append(data.Lines, math.Round(10*(chartHeight-chartY(seconds)))/10)
	}
	return s.template.Execute(w, &data)
}
