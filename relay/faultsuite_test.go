package main

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/redistest"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// The fault suite runs the built relay as processes while everything around it
// fails, and checks one invariant after every step. CONTRIBUTING tells how to run
// the long set.
var (
	faultsLong = flag.Bool("faults.long", false, "run the long set of the fault suite, and print its table")
	faultsSeed = flag.Uint64("faults.seed", 1, "seed of the fault suite's first run; the next run has the next one")
	faultsRuns = flag.Int("faults.runs", 1, "runs of each fault, with -faults.long")
)

// faultCase is a fault and the world that it falls upon.
type faultCase struct {
	name     string
	entries  int // of the short set; the long one has three times as many
	kong     kongtest.Options
	trail    cloudtrailtest.Options
	redis    []string // arguments of redis-server
	env      []string
	anyWay   bool // Kong pages in a way that the seed chooses
	purged   bool // Kong purges rows
	full     bool // only a read of everything finds what the fault hid
	real     bool // needs a real redis-server
	logs     bool // the destination is CloudWatch Logs
	lakeOnly bool // CloudWatch Logs has no such fault
	play     func(f *faultRun)
}

// faultRun is one run of a case.
type faultRun struct {
	*world
	c      faultCase
	t      *testing.T
	random *rand.Rand
	relays []*faultRelay
	ledger *redisledger.Ledger
	dest   faultDestination

	clockMu sync.Mutex
	clock   func() time.Time

	rows        map[string]content // everything that Kong ever held, by id
	times       map[string]int64
	order       []string
	checked     int // events that were compared
	undelivered map[string]bool
	allowed     int // repeats that the faults so far may have caused
	added       int
}

// faultRelay is a relay serve process.
type faultRelay struct {
	*relayRun
	url, ops string
}

const flightCalls = 4

// batch is how many entries a call has at most: as a rule, where their size bounds it.
func (f *faultRun) batch() int {
	if f.c.logs {
		return 1200
	}
	return 100
}

// inFlight is how many entries a kill may repeat.
func (f *faultRun) inFlight() int { return flightCalls * f.batch() }

func TestFaultSuite(t *testing.T) {
	t.Parallel()
	runs, table := 1, &faultTable{}
	if *faultsLong {
		runs = *faultsRuns
		t.Cleanup(func() { fmt.Println(table) })
	}
	cases := slices.Concat(processFaults(), redisFaults(), kongFaults(), trailFaults(), replicaFaults())
	if *faultsLong {
		cases = append(cases, onLogs(cases)...)
	} else {
		cases = append(cases, onLogs(slices.Concat(processFaults(), trailFaults()))...)
	}
	for _, c := range cases {
		if c.real && !redistest.Real() {
			t.Logf("%s: needs a redis-server", c.name)
			continue
		}
		for run := range runs {
			seed := *faultsSeed + uint64(run)
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				t.Parallel()
				newFaultRun(t, c, seed).run(table)
			})
		}
	}
}

func newFaultRun(t *testing.T, c faultCase, seed uint64) *faultRun {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.name))
	f := &faultRun{
		t: t, c: c, random: rand.New(rand.NewPCG(seed, h.Sum64())), clock: time.Now,
		rows: map[string]content{}, times: map[string]int64{}, undelivered: map[string]bool{},
	}
	if *faultsLong {
		f.c.entries *= 3
	}
	kong, trail := c.kong, c.trail
	kong.SkipReads, kong.Seed, trail.Faults.Seed = true, seed, seed
	kong.Now = func() time.Time { return f.now() }
	if c.anyWay {
		way := orders[f.random.IntN(len(orders))]
		t.Logf("seed %d: %s", seed, way.name)
		kong.Order, kong.BareNext, kong.AfterExclusive, kong.OffsetPosition = way.kong.Order, way.kong.BareNext, way.kong.AfterExclusive, way.kong.OffsetPosition
	}
	if trail.Faults.Delay == 0 {
		trail.Faults.Delay = 60 * time.Millisecond // so that there is a middle to fail in
	}
	f.world = newWorldOn(t, redistest.Start(t, c.redis...), kong, trail)
	f.dest = f.trail
	if c.logs {
		logs := logsFaults{f.deliverToLogs(cloudwatchtest.Options{ReadsPerSecond: -1})}
		logs.SetFaults(trail.Faults)
		f.dest = logs
	}
	f.env = slices.Concat(f.env, []string{
		"RELAY_LOG_LEVEL=debug", "RELAY_PAGE_SIZE=250", "RELAY_SCHEDULE=1m", fmt.Sprintf("RELAY_PUT_CONCURRENCY=%d", flightCalls),
	}, c.env)
	f.openLedger(f.redis.Addr)
	// Kong keeps rows for 30 days, also by a clock that is two days ahead.
	mix := auditlog.Mix{From: f.now().Add(-27 * 24 * time.Hour), To: f.now().Add(-time.Second), LargeEvery: 400, LargeBytes: 120_000}
	if !c.purged && !kong.OffsetPosition {
		// Where pages shift, a row without an id may be shown twice, and cannot be told
		// from two equal rows.
		mix.NoIDEvery = 150
	}
	f.add(slices.Collect(auditlog.Generate(f.c.entries, seed, mix))...)
	return f
}

// openLedger is the suite's own look at the ledger.
func (f *faultRun) openLedger(addrs ...string) {
	l := redisledger.Open(redisconn.Options{Addrs: addrs, Timeout: time.Second},
		redisledger.Options{Source: "kong", Destination: f.destination()})
	f.t.Cleanup(func() { l.Close() })
	f.ledger = l
}

// run plays the fault, lets everything recover, and holds the result against what
// Kong has.
func (f *faultRun) run(table *faultTable) {
	f.c.play(f)
	f.check("after the fault")
	if len(f.relays) > 0 {
		f.fresh()
	}
	if !f.c.full {
		f.eventuallyDecided("everything delivered by the relay alone", func() bool { return len(f.missing()) == 0 })
	}
	f.once("--full")
	f.check("at the end")
	lost := f.missing()
	if len(lost) > 0 {
		f.t.Errorf("%d of %d entries lost, such as %q", len(lost), len(f.rows), lost[0])
	}
	if again := f.once("--full"); again.New != 0 {
		f.t.Errorf("everything is delivered, but a further pass finds %d new entries", again.New)
	}
	f.verify()
	c := f.dest.Counts()
	if c.Repeats > f.allowed {
		f.t.Errorf("%d events repeated, want at most %d", c.Repeats, f.allowed)
	}
	for len(f.relays) > 0 {
		f.term(f.relays[0])
	}
	table.add(f.c.name, len(f.rows), len(lost), c.Repeats, f.allowed)
}

// verify has the product say the same.
func (f *faultRun) verify() {
	f.t.Helper()
	var r *relayRun
	var report verify.Report
	var code int
	// A relay says a moment later that an outage is over.
	f.eventually(patient, "no relay says that something fails", func() bool {
		r = f.start(nil, "verify", "--json", "--grace", "1s")
		code, report = r.wait(f.t), verify.Report{}
		if err := json.Unmarshal(r.stdout.Bytes(), &report); err != nil {
			f.t.Fatalf("relay verify ended with %d: %v\n%s", code, err, tail(r.stderr.String(), 2000))
		}
		return report.Failing == ""
	})
	// What is undelivered is a difference, and there must be no other.
	want := exitOK
	if report.DeadLetters+report.DeferredEntries > 0 {
		want = exitDifference
	}
	if code != want || report.Missing.Count > 0 || report.Destination != nil && report.Destination.Missing.Count > 0 {
		f.t.Errorf("relay verify ended with %d, want %d:\n%s%s", code, want, tail(r.stdout.String(), 2000), tail(r.stderr.String(), 2000))
	}
}

// now is Kong's clock.
func (f *faultRun) now() time.Time {
	f.clockMu.Lock()
	defer f.clockMu.Unlock()
	return f.clock()
}

// jump moves Kong's clock.
func (f *faultRun) jump(by time.Duration) {
	f.clockMu.Lock()
	defer f.clockMu.Unlock()
	f.clock = func() time.Time { return time.Now().Add(by) }
}

// add puts rows into Kong's log and remembers what has to become of them.
func (f *faultRun) add(rows ...auditlog.Row) {
	f.t.Helper()
	var ordinals audit.Ordinals
	for _, r := range rows {
		e := []audit.Entry{entryOf(&r)}
		ordinals.Assign(e)
		f.rows[e[0].ID], f.times[e[0].ID] = contentOf(&r, e[0].ID), r.RequestTimestamp
		f.order = append(f.order, e[0].ID)
	}
	f.kong.Add(rows...)
}

// more adds n rows around a time.
func (f *faultRun) more(n int, at time.Time) {
	f.added++
	f.add(rows(fmt.Sprintf("m%dx%d", f.added, f.random.Uint32()), n, func(i int) time.Time { return at.Add(time.Duration(i) * time.Millisecond) })...)
}

// up starts relay serve.
func (f *faultRun) up(env ...string) *faultRelay {
	f.t.Helper()
	r, url, ops := f.serve(env...)
	relay := &faultRelay{r, url, ops}
	f.relays = append(f.relays, relay)
	return relay
}

func (f *faultRun) gone(r *faultRelay) {
	f.relays = slices.DeleteFunc(f.relays, func(o *faultRelay) bool { return o == r })
}

// kill ends a relay by kill -9.
func (f *faultRun) kill(r *faultRelay) {
	f.t.Helper()
	f.signal(r, syscall.SIGKILL)
	r.wait(f.t)
	f.gone(r)
	f.allowed += f.inFlight()
}

// term tells a relay to stop, which repeats nothing.
func (f *faultRun) term(r *faultRelay) {
	f.t.Helper()
	f.signal(r, syscall.SIGTERM)
	if code := r.wait(f.t); code != 0 {
		f.t.Errorf("relay serve ended with %d on SIGTERM:\n%s", code, tail(r.stderr.String(), 2000))
	}
	f.gone(r)
}

func (f *faultRun) signal(r *faultRelay, s syscall.Signal) {
	f.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		f.t.Fatalf("%v: %v\n%s", s, err, tail(r.stderr.String(), 2000))
	}
}

// faultTable is what the long set prints.
type faultTable struct {
	mu    sync.Mutex
	names []string
	lines map[string][]int // runs, entries, lost, repeated, allowed
}

func (t *faultTable) add(name string, entries, lost, repeated, allowed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines == nil {
		t.lines = map[string][]int{}
	}
	if t.lines[name] == nil {
		t.lines[name] = make([]int, 5)
		t.names = append(t.names, name)
	}
	for i, n := range []int{1, entries, lost, repeated, allowed} {
		t.lines[name][i] += n
	}
}

func (t *faultTable) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\truns\tentries\tlost\trepeated\tallowed\t")
	for _, name := range t.names {
		fmt.Fprintf(w, "%s\t", name)
		for _, n := range t.lines[name] {
			fmt.Fprintf(w, "%d\t", n)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	return b.String()
}
