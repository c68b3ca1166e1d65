//go:build browser

package main

import (
	"flag"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/browsertest"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

var screenshots = flag.String("browser.screenshots", "", "writes screenshots of the pages into this folder")

// widths are those of a small telephone, of a tablet and of screens.
var widths = []int{375, 390, 820, 1440, 1920}

const maxPageBytes = 60_000

// shown opens a page in both schemes and at all widths. It expects that what it says can be
// read without scrolling sideways, that it is small, and that it asks nobody else.
func shown(t *testing.T, b *browsertest.Browser, name, url string, want ...string) {
	t.Helper()
	for _, dark := range []bool{false, true} {
		p := b.Open(url, dark)
		for _, width := range widths {
			p.Resize(width)
			f := p.Facts()
			at := fmt.Sprintf("%s, dark %t, %d pixels", name, dark, width)
			if f.Width > f.Window || f.Window != width || len(f.Cut) > 0 {
				t.Errorf("%s: the content is %d pixels wide, the window %d; cut are %q", at, f.Width, f.Window, f.Cut)
			}
			if f.Texts < 1 || len(f.Faint) > 0 {
				t.Errorf("%s: of %d texts, these have too little contrast: %q", at, f.Texts, f.Faint)
			}
			if f.Bytes < 1 || f.Bytes > maxPageBytes {
				t.Errorf("%s: %d bytes, want at most %d", at, f.Bytes, maxPageBytes)
			}
			if width == widths[0] {
				contains(t, f.Text, want...)
			}
			if *screenshots != "" && width != 375 && width != 1920 {
				p.Screenshot(filepath.Join(*screenshots, fmt.Sprintf("%s-%d-%s.png", strings.ReplaceAll(name, " ", "-"), width, map[bool]string{false: "light", true: "dark"}[dark])))
			}
		}
		if problems := p.Problems(); len(problems) > 0 {
			t.Errorf("%s, dark %t: %q", name, dark, problems)
		}
		p.Close()
	}
}

// The relay's pages and that of the emulated destination can be read in a browser on
// anything from a telephone to a large screen, in a light and in a dark scheme. They follow
// what happens without being loaded again, and load nothing from elsewhere.
func TestPagesInABrowser(t *testing.T) {
	w := &edited{world: newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})}
	logs := w.deliverToLogs(cloudwatchtest.Options{})
	page := w.get("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS")
	b := browsertest.Start(t) // ends first: its streams keep the page's server
	// Kong should have shown this one long ago.
	if err := w.ledger().Announce(t.Context(), []string{"neverrecordedneverrecordednever1"}, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, url, ops := w.serve("RELAY_OBJECTS=true", "RELAY_RETRY_FOR=1s", "RELAY_SKIP_OWN_READS=true")
	logs.LinkRelay(ops + "/")
	w.urls = []string{url}
	edit := func(method, path string, body map[string]any) {
		w.one(entities.Edit{Method: method, Path: path, Body: body}, true)
	}
	edit(http.MethodPost, "/services", map[string]any{"name": "orders", "host": "orders.internal", "path": "/a"})
	edit(http.MethodPost, "/services/orders/routes", map[string]any{"name": "orders", "paths": []any{"/orders"}})
	edit(http.MethodPatch, "/services/orders", map[string]any{"path": "/b", "retries": 3, "host": strings.Repeat("a-long-name.", 12) + "internal"})
	edit(http.MethodPost, "/consumers", map[string]any{"username": "alice"})
	edit(http.MethodPost, "/consumers/alice/key-auth", map[string]any{"key": "demo"})
	edit(http.MethodGet, "/services", nil)
	edit(http.MethodDelete, "/consumers/alice", nil)
	eventually(t, patient, "the events", func() bool { return logs.Counts().Distinct == 7 })

	live := b.Open(ops+"/", false)
	live.Resize(1440)
	live.Eval("window.loadedOnce = true", nil)
	says := func(text string) { live.Await(fmt.Sprintf("loadedOnce && document.body.innerText.includes(%q)", text)) }
	says("All that Kong recorded up to")
	says("services/orders")
	history := regexp.MustCompile(`href="(history/services/[^"]+)"`)
	_, text := fetchOps(t, ops+"/")
	link := history.FindStringSubmatch(text)
	if link == nil {
		t.Fatalf("no link to a history:\n%s", text)
	}
	shown(t, b, "history", ops+"/"+link[1], "orders", "/a", "/b")
	shown(t, b, "destination", page, "CloudWatch Logs", "PATCH/services/orders", "the relay's page")
	shown(t, b, "event", page+"/events/1", "all events", `"eventName": "`)

	// An event arrives in the list that is open, and opens in it.
	for i, dark := range []bool{false, true} {
		events := b.Open(page, dark)
		events.Resize(820)
		events.Eval("window.loadedOnce = true", nil)
		edit(http.MethodPatch, "/services/orders", map[string]any{"path": fmt.Sprintf("/c%d", i)})
		events.Await(fmt.Sprintf(`loadedOnce && document.querySelectorAll("tr.event").length === %d && document.getElementById("live").textContent === "live"`, 8+i))
		events.Eval(`document.querySelector("tr.event").click()`, nil)
		events.Await(`document.querySelector("tr.detail pre").textContent.includes("userIdentity")`)
		if f, problems := events.Facts(), events.Problems(); f.Width > f.Window || len(f.Faint)+len(f.Cut)+len(problems) > 0 {
			t.Errorf("an open event, dark %t: %q, %+v", dark, problems, f)
		}
		events.Close()
	}

	// One outage that ends, and one that does not, beside an entry that is refused.
	logs.SetFaults(cloudwatchtest.Faults{IDs: map[string]string{"bad": "InvalidParameterException"}})
	w.kong.Add(row("bad", time.Now()))
	notifyOnce(t, url, "bad")
	logs.SetDown(true)
	edit(http.MethodPatch, "/services/orders", map[string]any{"path": "/d"})
	says("Destination has been failing since")
	logs.SetDown(false)
	notifyOnce(t, url)
	live.Await(`loadedOnce && !document.body.innerText.includes("Destination has been failing since")`)
	logs.SetFaults(cloudwatchtest.Faults{Calls: map[string]float64{"AccessDeniedException": 1}})
	edit(http.MethodPatch, "/services/orders", map[string]any{"path": "/e"})
	says("Destination has been failing since")
	live.Await(`document.title.startsWith("Failing")`)
	shown(t, b, "failing", ops+"/", "Destination has been failing since", "AccessDeniedException", "What to do: ")
	if problems := live.Problems(); len(problems) > 0 {
		t.Errorf("%q", problems)
	}
}

// The demo opens with the page of a relay without any trouble.
func TestDemoInABrowser(t *testing.T) {
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "demo", "--no-plugin", "--every", "100ms")
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := regexp.MustCompile(`(?m)^The relay's own page +(http://\S+)`)
	eventually(t, patient, "the demo", func() bool { return address.MatchString(said.String()) })
	b := browsertest.Start(t)
	url := address.FindStringSubmatch(said.String())[1]
	p := b.Open(url, false)
	p.Await(`document.body.innerText.includes("All that Kong recorded up to") && document.body.innerText.includes("services/orders")`)
	shown(t, b, "healthy", url, "All that Kong recorded up to", "DEPENDENCIES", "services/orders")
	if problems := p.Problems(); len(problems) > 0 {
		t.Errorf("%q", problems)
	}
}
