package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
	"github.com/kong-cloudtrail/relay/internal/redistest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// edited is a Kong that is edited while relays read both of its logs.
type edited struct {
	*world
	gen  *entities.Generator
	mu   sync.Mutex
	urls []string // where relays take triggers
}

// edit makes the generator's edits for some time and announces nearly all of them.
func (w *edited) edit(lasts time.Duration) {
	w.tb.Helper()
	end := time.Now().Add(lasts)
	for n := 0; time.Now().Before(end); n++ {
		s := w.gen.Next()
		select {
		case <-time.After(min(s.Pause/3, 900*time.Millisecond)):
		case <-w.tb.Context().Done():
		}
		var all sync.WaitGroup
		for _, e := range s.Edits {
			all.Go(func() { w.one(e, n%10 != 0) })
		}
		all.Wait()
	}
}

func (w *edited) one(e entities.Edit, announce bool) {
	body, err := json.Marshal(e.Body)
	if err != nil {
		w.tb.Error(err)
		return
	}
	r, err := http.NewRequestWithContext(w.tb.Context(), e.Method, w.kongURL+e.Path, bytes.NewReader(body))
	if err != nil {
		w.tb.Error(err)
		return
	}
	r.Header.Set("Kong-Admin-Token", testToken)
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.tb.Error(err)
		return
	}
	res.Body.Close()
	w.mu.Lock()
	urls := w.urls
	w.mu.Unlock()
	if !announce || len(urls) == 0 {
		return
	}
	url := urls[0]
	if e.Method != http.MethodPatch {
		url = urls[len(urls)-1]
	}
	c, err := trigger.NewClient(trigger.ClientOptions{URL: url, Delivery: trigger.Delivery{Timeout: patient}})
	if err != nil {
		w.tb.Error(err)
		return
	}
	defer c.Close()
	_ = c.Notify(w.tb.Context(), []string{res.Header.Get("X-Kong-Admin-Request-ID")}) // a relay that was killed takes none
}

// said is what an event says of changes.
type said struct {
	UID              string
	ResponseElements *struct {
		Changes []struct {
			Entity, Key, Operation, History string
			From, To                        []entities.Field
			Truncated                       int
		}
		Late      bool
		Truncated int
	}
}

// describe lists the true changes of an entity.
func (w *edited) describe(list []entities.Change, events map[string]string) string {
	written, requests := slices.Collect(w.kong.EverObjectIDs()), slices.Collect(w.kong.EverIDs())
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintf(&b, "%s %s by %s, row written %t, request's row %t, event before %t\n", c.At.Format("15:04:05.000"), c.Operation, c.RequestID,
			slices.Contains(written, c.Row), slices.Contains(requests, c.RequestID), events[c.RequestID] != "")
	}
	return b.String()
}

// judge compares what arrived with the truth.
func (w *edited) judge() {
	w.tb.Helper()
	truth := map[string]map[string]entities.Change{} // by request, kind and key
	byEntity := map[string][]entities.Change{}
	for _, c := range w.kong.World().Changes() {
		if truth[c.RequestID] == nil {
			truth[c.RequestID] = map[string]entities.Change{}
		}
		truth[c.RequestID][c.DAO+"/"+c.Key] = c
		byEntity[c.Key] = append(byEntity[c.Key], c)
	}
	first := map[string]string{}
	said1 := map[string]bool{} // changes that are in an event
	late, exact, all, wrong, differs := 0, 0, 0, 0, 0
	exactOf := map[string]bool{}
	for _, ev := range w.trail.Events() {
		for _, s := range w.gen.Secrets() {
			if strings.Contains(ev.Data, s.Value) {
				w.tb.Fatalf("an event shows the secret of %s: %s", s.Place, tail(ev.Data, 3000))
			}
		}
		var e said
		if err := json.Unmarshal([]byte(ev.Data), &e, json.MatchCaseInsensitiveNames(true)); err != nil {
			w.tb.Fatal(err)
		}
		if e.ResponseElements == nil {
			if len(truth[e.UID]) > 0 {
				w.tb.Errorf("%s changed %d entities, and its event does not even say that it is late", e.UID, len(truth[e.UID]))
			}
			continue
		}
		elements, err := json.Marshal(e.ResponseElements)
		if err != nil {
			w.tb.Fatal(err)
		}
		if was, ok := first[e.UID]; ok && was != string(elements) {
			differs++
			continue
		}
		first[e.UID] = string(elements)
		if e.ResponseElements.Late {
			late++
		}
		for _, c := range e.ResponseElements.Changes {
			all++
			at := c.Entity + "/" + c.Key
			t, ok := truth[e.UID][at]
			if !ok {
				w.tb.Errorf("%s did not change %s", e.UID, at)
				continue
			}
			said1[e.UID+at] = true
			if c.History != "exact" {
				continue
			}
			exact++
			exactOf[e.UID+at] = true
			if c.Truncated > 0 {
				continue
			}
			if err := t.Deny(c.From, c.To, "[secret "); err != nil {
				wrong++
				w.tb.Errorf("a wrong exact %s of %s by %s: %v; in truth it was changed so:\n%s", c.Operation, at, e.UID, err, w.describe(byEntity[c.Key], first))
			}
		}
	}
	missing, written := 0, map[string]bool{}
	for id := range w.kong.EverObjectIDs() {
		written[id] = true
	}
	for id, of := range truth {
		if strings.Contains(first[id], `"Late":true`) {
			continue
		}
		for at, c := range of {
			if !said1[id+at] && written[c.Row] && first[id] != "" {
				missing++
			}
		}
	}
	alone, exactAlone := 0, 0 // updates that no other change of the entity is near to
	for _, list := range byEntity {
		for i, c := range list {
			if c.Operation != "update" || i > 0 && c.At.Sub(list[i-1].At) < 2*time.Second || i+1 < len(list) && list[i+1].At.Sub(c.At) < 2*time.Second {
				continue
			}
			alone++
			if exactOf[c.RequestID+c.DAO+"/"+c.Key] {
				exactAlone++
			}
		}
	}
	// Rows that came when their event had gone are counted by the relay. A machine that stands still may
	// keep back those of a request, and on a slow one there are few changes.
	if missing > 4+len(w.kong.World().Changes())/20 {
		w.tb.Errorf("%d changes are in no event, and their events do not say that they are late", missing)
	}
	w.tb.Logf("%d changes in truth; %d said, %d exact, %d wrong; %d events late, %d changes in no event; %d events differ when repeated; %d of %d updates alone are exact",
		len(w.kong.World().Changes()), all, exact, wrong, late, missing, differs, exactAlone, alone)
}

var (
	changesSeed  = flag.Uint64("changes.seed", 0, "added to the seeds of TestChangesOfTwoRelays")
	changesHarsh = flag.String("changes.harsh", "", "makes TestChangesOfTwoRelays harsher: clocks that differ, more rows late and lost; newest: in a log that is not filtered, else filtered")
)

// TestChangesOfTwoRelays edits a Kong at random while two relays read it, are killed,
// and their ledger is emptied.
func TestChangesOfTwoRelays(t *testing.T) {
	t.Parallel()
	kong := kongtest.Options{SkipReads: true, NoPayloads: true, PayloadExclude: []string{}, Seed: 3, LoseRows: 0.002, LoseObjects: 0.002}
	rowsWithin, objectsWithin, stragglers := 300*time.Millisecond, 600*time.Millisecond, 0.01
	kong.Seed += *changesSeed
	if *changesHarsh != "" {
		rowsWithin, objectsWithin, stragglers = 800*time.Millisecond, 900*time.Millisecond, 0.04
		kong.LoseRows, kong.LoseObjects = 0.01, 0.01
		kong.Nodes = []kongtest.Node{{Hostname: "cp-1"}, {Hostname: "cp-2", Skew: 3 * time.Second}}
		kong.Order = map[string]kongtest.Order{"newest": kongtest.NewestFirst}[*changesHarsh]
	}
	kong.Delay = func(object bool, random *rand.Rand) time.Duration {
		d, within := 100*time.Millisecond, rowsWithin
		if object {
			within = objectsWithin
		}
		if random.Float64() < stragglers {
			d += 1200 * time.Millisecond
		}
		return d + time.Duration(random.Int64N(int64(within-100*time.Millisecond)))
	}
	w := &edited{world: newWorld(t, kong, cloudtrailtest.Options{})}
	w.gen = entities.NewGenerator(w.kong.World(), 5+*changesSeed)
	quiet := 4 * time.Second
	if *faultsLong {
		quiet = 2 * time.Minute
	}
	serve := func() *relayRun {
		r, url, _ := w.serve("RELAY_OBJECTS=true", "RELAY_SCHEDULE=1m")
		w.mu.Lock()
		w.urls = append(w.urls, url)
		w.mu.Unlock()
		return r
	}
	forget := func(i int) {
		w.mu.Lock()
		w.urls = append(w.urls[:i:i], w.urls[i+1:]...)
		w.mu.Unlock()
	}
	one, two := serve(), serve()
	w.edit(quiet)
	forget(0)
	if err := one.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.edit(quiet)
	redisDo(t, w.redis.Addr, "FLUSHALL")
	w.edit(quiet)
	one = serve()
	w.edit(quiet)
	forget(0)
	if err := two.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	two.wait(t)
	w.edit(quiet)
	eventually(t, patient, "all events", func() bool { return w.kong.LateRows() == 0 && len(w.lost()) == 0 })
	for i, r := range []*relayRun{one, two} {
		for _, s := range w.gen.Secrets() {
			if strings.Contains(r.stderr.String(), s.Value) {
				t.Errorf("the log of relay %d shows the secret of %s", i, s.Place)
			}
		}
	}
	w.expectAll(1 << 30)
	w.judge()
}

// The relay's page names the entities that were changed last, and leads to their history
// if nobody but this machine can ask for it.
func TestPageLinksHistory(t *testing.T) {
	t.Parallel()
	w := &edited{world: newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})}
	_, url, ops := w.serve("RELAY_OBJECTS=true")
	w.urls = []string{url}
	w.one(entities.Edit{Method: "POST", Path: "/services", Body: map[string]any{"name": "orders", "path": "/a"}}, true)
	w.one(entities.Edit{Method: "PATCH", Path: "/services/orders", Body: map[string]any{"path": "/b"}}, true)
	get := func(url, host string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	var link string
	eventually(t, patient, "a link to the history of a service", func() bool {
		_, page := get(ops+"/", "")
		link = regexp.MustCompile(`history/services/[^"]+`).FindString(page)
		return link != ""
	})
	if status, text := get(ops+"/"+link, ""); status != http.StatusOK || !strings.Contains(text, "PATCH /services/orders\n") || !strings.Contains(text, "  + path: \"/b\"\n") {
		t.Errorf("%d: %s", status, text)
	}
	if status, _ := get(ops+"/"+link, "rebound.example:80"); status != http.StatusForbidden {
		t.Errorf("a history for another name: %d", status)
	}
	if status, _ := get(ops+"/history/services/none", ""); status != http.StatusNotFound {
		t.Errorf("a history of nothing: %d", status)
	}
	// Only now: a page tells of what its own relay delivered.
	port := redistest.FreePort(t)
	w.serve("RELAY_OBJECTS=true", "RELAY_OPS_LISTEN=0.0.0.0:"+port)
	eventually(t, patient, "the page that others can open", func() bool { status, _ := get("http://127.0.0.1:"+port+"/", ""); return status != 0 })
	if status, _ := get("http://127.0.0.1:"+port+"/"+link, ""); status != http.StatusNotFound {
		t.Errorf("a history for anyone: %d", status)
	}
}

// A function's metrics say how much is known of what its events tell of.
func TestLambdaCountsChanges(t *testing.T) {
	t.Parallel()
	w := &edited{world: newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})}
	w.env = append(w.env, "RELAY_OBJECTS=true")
	l := newFakeLambda(w.world, time.Minute)
	w.one(entities.Edit{Method: "POST", Path: "/services", Body: map[string]any{"name": "orders", "path": "/a"}}, false)
	eventually(t, patient, "the row of the request", func() bool { return len(slices.Collect(w.kong.EverIDs())) == 1 && w.kong.LateRows() == 0 })
	l.result(scheduleEvent)
	l.result(scheduleEvent)
	l.stop()
	lines := l.emf()
	if len(lines) != 2 {
		t.Fatalf("%d lines of metrics for 2 invocations", len(lines))
	}
	for name, want := range map[string][]float64{"ChangesExact": {1, 0}, "ChangesApproximate": {0, 0}, "ChangesUnavailable": {0, 0}, "ChangesLate": {0, 0}} {
		for i, line := range lines {
			if got, ok := line[name]; !ok || got != want[i] {
				t.Errorf("line %d: %s is %v (%v), want %v", i, name, got, ok, want[i])
			}
		}
	}
}
