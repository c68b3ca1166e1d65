package browsertest

import (
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Page is a tab of a browser.
type Page struct {
	b               *Browser
	target, session string
	host            string // of the address
	loaded          chan struct{}

	mu       sync.Mutex
	problems []string
}

// Open opens an address in a new tab, in the dark or the light scheme, and returns once it
// has been loaded.
func (b *Browser) Open(address string, dark bool) *Page {
	b.tb.Helper()
	u, err := url.Parse(address)
	b.must(err)
	p := &Page{b: b, host: u.Host, loaded: make(chan struct{}, 16)}
	var target struct {
		ID string `json:"targetId"`
	}
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached)
	p.target, p.session = target.ID, attached.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", nil, nil)
	}
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	p.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil)
	for len(p.loaded) > 0 {
		<-p.loaded // of the empty page
	}
	var answer struct {
		Text string `json:"errorText"`
	}
	p.call("Page.navigate", map[string]any{"url": address}, &answer)
	if answer.Text != "" {
		b.tb.Fatalf("opening %s: %s", address, answer.Text)
	}
	select {
	case <-p.loaded:
	case <-time.After(patience):
		b.tb.Fatalf("%s was not loaded within %s", address, patience)
	}
	return p
}

// Close closes the tab.
func (p *Page) Close() {
	p.b.tb.Helper()
	p.b.call("", "Target.closeTarget", map[string]any{"targetId": p.target}, nil)
}

// Resize makes the window so wide.
func (p *Page) Resize(width int) {
	p.b.tb.Helper()
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Eval evaluates an expression and decodes what it gives, or what its promise does.
func (p *Page) Eval(expression string, out any) {
	p.b.tb.Helper()
	var answer struct {
		Result struct {
			Value jsontext.Value `json:"value"`
		} `json:"result"`
		Exception jsontext.Value `json:"exceptionDetails"`
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.Exception != nil {
		p.b.tb.Fatalf("%s: %s", expression, answer.Exception)
	}
	if out != nil {
		p.b.must(json.Unmarshal(answer.Result.Value, out))
	}
}

// Await waits until an expression is true.
func (p *Page) Await(expression string) {
	p.b.tb.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		var holds bool
		if p.Eval("Boolean("+expression+")", &holds); holds {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			var text string
			p.Eval("document.body.innerText", &text)
			p.b.tb.Fatalf("not within %s: %s\n%s", patience, expression, text)
		}
	}
}

// Facts are what can be told of a page as it is shown.
type Facts struct {
	Width  int // of the content, which is to be no more than the window's
	Window int
	Bytes  int      // of the page and all that it has loaded but by fetch
	Text   string   // that is shown
	Texts  int      // runs of text that were looked at
	Faint  []string // texts whose contrast (WCAG 2) with what is behind them is below 4.5
	Cut    []string // elements that are to be scrolled sideways, or hide what is too wide
}

//go:embed facts.js
var facts string

// Facts returns the page's facts.
func (p *Page) Facts() (f Facts) {
	p.b.tb.Helper()
	p.Eval(facts, &f)
	return f
}

// Problems returns what was wrong so far: errors of scripts and of the console, and requests
// to other hosts.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.problems)
}

// Screenshot writes the whole page into a PNG file.
func (p *Page) Screenshot(path string) {
	p.b.tb.Helper()
	var metrics struct {
		Size struct {
			Width  float64 `json:"width"`
			Height float64 `json:"height"`
		} `json:"cssContentSize"`
	}
	p.call("Page.getLayoutMetrics", nil, &metrics)
	var picture struct {
		Data []byte `json:"data"`
	}
	p.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "clip": map[string]any{
		"x": 0, "y": 0, "width": metrics.Size.Width, "height": metrics.Size.Height, "scale": 1,
	}}, &picture)
	p.b.must(os.WriteFile(path, picture.Data, 0o600))
}

func (p *Page) call(method string, params map[string]any, out any) {
	p.b.tb.Helper()
	p.b.call(p.session, method, params, out)
}

func (b *Browser) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

// event notes what an event says of the page.
func (p *Page) event(method string, params jsontext.Value) {
	var e struct {
		Type    string // of a line of the console
		Args    jsontext.Value
		Details jsontext.Value `json:"exceptionDetails"`
		Entry   struct{ Level, Text, URL string }
		Request struct{ URL string }
	}
	if err := json.Unmarshal(params, &e, json.MatchCaseInsensitiveNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		p.problem("%s: %v", method, err)
		return
	}
	switch method {
	case "Page.loadEventFired":
		select {
		case p.loaded <- struct{}{}:
		default:
		}
	case "Runtime.consoleAPICalled":
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			p.problem("console: %s", e.Args)
		}
	case "Runtime.exceptionThrown":
		p.problem("exception: %s", e.Details)
	case "Log.entryAdded":
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.problem("%s: %s", e.Entry.Text, e.Entry.URL)
		}
	case "Network.requestWillBeSent":
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && !strings.EqualFold(u.Host, p.host) {
			p.problem("request to %s", e.Request.URL)
		}
	}
}

func (p *Page) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}
