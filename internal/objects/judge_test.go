package objects_test

import (
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// changeIn is a change as an event says it.
type changeIn struct {
	Entity, Key, Name, Operation, History string
	From, To                              []changes.Field
	Truncated                             int
}

type eventIn struct {
	Changes   []changeIn
	Late      bool
	Truncated int
}

// judge compares what was delivered with what was true.
func (j *judged) judge(once bool) (v verdictOf) {
	t := j.t
	byEntity := map[string][]entities.Change{}
	byRequest := map[string][]entities.Change{}
	for _, c := range j.world.Changes() {
		byEntity[c.DAO+"/"+c.Key] = append(byEntity[c.DAO+"/"+c.Key], c)
		byRequest[c.RequestID] = append(byRequest[c.RequestID], c)
	}
	unsaid := 0 // changes whose rows are there, in no event, and whose event is not late
	there := func(c entities.Change) int { return one(!j.lostRows[c.Row] && !j.purged[c.RequestID]) }
	for id, e := range j.edits {
		if j.lostReqs[id] {
			for _, c := range byRequest[id] {
				unsaid += there(c)
			}
			continue
		}
		events := j.dest.events[id]
		if (len(events) != 1 && once || len(events) == 0) && !j.purged[id] {
			t.Errorf("%s %s was delivered %d times", e.Method, e.Path, len(events))
		}
		for n := range events {
			in := decodeEvent(t, events[n].Changes)
			if (e.Method == http.MethodGet || e.Status >= 400) && events[n].Changes != "" {
				t.Errorf("%s %s %d has changes: %s", e.Method, e.Path, e.Status, events[n].Changes)
			}
			if in.Late {
				v.late++
			}
			for _, c := range byRequest[id] {
				got := in.of(c)
				quiet := n == 0 && !in.Late && j.quiet(c, byEntity[c.DAO+"/"+c.Key], byRequest[id])
				if got == nil {
					if n == 0 && !in.Late && in.Truncated == 0 {
						unsaid += there(c)
					}
					continue
				}
				v.quiet += one(quiet)
				if got.History != string(changes.Exact) {
					continue
				}
				v.exact++
				v.quietExact += one(quiet)
				mask := changes.NewMasker(j.keys[events[n].ledger], nil)
				if from, to := j.truth(mask, c); got.Truncated == 0 && (!equalFields(from, got.From) || !equalFields(to, got.To)) {
					v.wrong++
					t.Errorf("wrong exact: %s %s\n  %s %s/%s at %s\n  got  %.300v → %.300v\n  want %.300v → %.300v", e.Method, e.Path, c.Operation, c.DAO, c.Key, j.made[id].Format("15:04:05.000"), got.From, got.To, from, to)
					for _, o := range byEntity[c.DAO+"/"+c.Key] {
						if o.At.Sub(c.At).Abs() < time.Minute {
							t.Logf("   %s clock %s, %s %s request shown %s lost %v late %v", j.made[o.RequestID].Format("15:04:05.000"), o.At.Sub(j.made[o.RequestID]), o.RequestID, o.Operation, j.shown[o.RequestID].Format("15:04:05.000"), j.lostRows[o.Row] || j.lostReqs[o.RequestID], j.lateRows[o.Row])
						}
					}
				}
			}
		}
	}
	if unsaid > j.late {
		t.Errorf("%d changes are in no event, and %d were counted as late", unsaid, j.late)
	}
	v.unsaid = unsaid
	return v
}

type verdictOf struct{ exact, wrong, quiet, quietExact, late, unsaid int }

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func decodeEvent(t testing.TB, text string) (in eventIn) {
	if text == "" {
		return in
	}
	if err := json.Unmarshal([]byte(text), &in, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("changes %.200s: %v", text, err)
	}
	return in
}

// of returns what an event says of a change, nil for nothing.
func (in *eventIn) of(c entities.Change) *changeIn {
	for i := range in.Changes {
		if x := &in.Changes[i]; x.Entity == c.DAO && x.Key == c.Key && x.Operation == c.Operation {
			return x
		}
	}
	return nil
}

// quiet reports whether a change is an update of an entity that nobody else touched
// within two seconds, and whose rows are all there.
func (j *judged) quiet(c entities.Change, entity, request []entities.Change) bool {
	for _, o := range entity {
		if o.Seq != c.Seq && j.made[o.RequestID].Sub(j.made[c.RequestID]).Abs() <= 2*time.Second {
			return false
		}
	}
	for _, o := range request {
		if j.lostRows[o.Row] || j.lateRows[o.Row] {
			return false
		}
	}
	return c.Operation == changes.Update
}

// truth returns what a change was, without secrets.
func (j *judged) truth(mask *changes.Masker, c entities.Change) (from, to []changes.Field) {
	before, after := changes.State(""), changes.State("")
	if c.Before != nil {
		before = mask.Mask(c.DAO, c.Key, string(c.Before), "")
	}
	if c.After != nil {
		after = mask.Mask(c.DAO, c.Key, string(c.After), "")
	}
	return changes.Diff(before, after)
}

func equalFields(a, b []changes.Field) bool {
	return slices.EqualFunc(a, b, func(x, y changes.Field) bool {
		return x.Path == y.Path && string(x.Value) == string(y.Value)
	})
}

// secrets looks for planted secrets in everything that was delivered, logged or stored.
func (j *judged) secrets(dir string) {
	t := j.t
	var all strings.Builder
	for _, events := range j.dest.events {
		for _, e := range events {
			all.WriteString(e.Changes)
		}
	}
	all.Write(j.logs.Bytes())
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	text := all.String()
	places := map[string]bool{}
	for _, s := range j.gen.Secrets() {
		places[s.Place] = true
		for _, form := range []string{s.Value, base64.StdEncoding.EncodeToString([]byte(s.Value))[:40], hex.EncodeToString([]byte(s.Value))} {
			if strings.Contains(text, form) {
				t.Errorf("a secret of %s shows", s.Place)
			}
		}
	}
	t.Logf("%d secrets in %d kinds of places", len(j.gen.Secrets()), len(places))
}

// TestEveryExactIsTrue edits a Kong some hundred times, with rows that come late, in any
// order or never, and compares what events say with what was true.
func TestEveryExactIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, dir := newJudged(t, 1, 1)
		defer os.RemoveAll(dir)
		j.start()
		j.makeEdits(*edits)
		pause(2 * time.Hour)
		j.stopAll()
		j.closeLedger()
		v := j.judge(true)
		t.Logf("%+v, histories %v, %d late rows, pages: %d of objects, %d of requests", v, j.histories, j.late, j.objects.reads, j.requests.reads)
		if least := 9 - one(*edits < 1000); v.quietExact*10 < v.quiet*least { // few edits are not a fair sample
			t.Errorf("%d of %d quiet updates are exact", v.quietExact, v.quiet)
		}
		j.secrets(dir)
	})
}

// TestEveryExactIsTrueOfAnyClock is the same with control planes whose clocks differ by
// some seconds, and requests of which some are not announced.
func TestEveryExactIsTrueOfAnyClock(t *testing.T) {
	t.Parallel()
	for _, apart := range []time.Duration{3 * time.Second, -3 * time.Second} {
		t.Run(apart.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j, dir := newJudged(t, 4, 0.8)
				defer os.RemoveAll(dir)
				j.clocks = []time.Duration{0, apart}
				j.start()
				j.makeEdits(*edits)
				pause(2 * time.Hour)
				j.stopAll()
				j.closeLedger()
				v := j.judge(true)
				t.Logf("clocks %s apart: %+v, histories %v, %d late rows", apart, v, j.histories, j.late)
				if v.quietExact*10 < v.quiet*8 {
					t.Errorf("%d of %d quiet updates are exact", v.quietExact, v.quiet)
				}
			})
		})
	}
}

// TestEveryExactIsTrueInTrouble is the same with a relay that is down now and then, rows
// that are purged meanwhile, a ledger that is emptied, a second relay, and a log of
// changed entities that cannot be read for a while.
func TestEveryExactIsTrueInTrouble(t *testing.T) {
	t.Parallel()
	for _, newest := range []bool{false, true} {
		t.Run(fmt.Sprint("newest first ", newest), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j, dir := newJudged(t, 2, 0.7)
				defer os.RemoveAll(dir)
				j.objects.newest, j.requests.newest = newest, newest
				j.start()
				for i := range *edits / 40 {
					j.makeEdits(25)
					switch i % 6 {
					case 0: // down
						j.stopAll()
						j.makeEdits(15)
						j.start()
					case 1: // down, and rows are purged unread
						j.stopAll()
						j.makeEdits(15)
						j.purge(time.Now().Add(-time.Duration(j.rand.IntN(60)) * time.Second))
						j.start()
					case 2: // rows are purged
						j.purge(time.Now().Add(-time.Duration(j.rand.IntN(300)) * time.Second))
					case 3: // another ledger
						j.stopAll()
						j.closeLedger()
						j.openLedger(dir)
						j.start()
					case 4: // a second relay
						j.start()
						j.makeEdits(15)
						j.relays[0].stop()
						<-j.relays[0].done
						j.relays = j.relays[1:]
					case 5: // no objects
						j.objects.setDown(true)
						j.makeEdits(10)
						j.objects.setDown(false)
					}
				}
				pause(2 * time.Hour)
				j.stopAll()
				j.closeLedger()
				v := j.judge(false)
				t.Logf("newest first %v: %+v, histories %v, %d late rows", newest, v, j.histories, j.late)
				j.secrets(dir)
			})
		})
	}
}

// edits is how many edits a test makes.
var (
	edits = flag.Int("judge.edits", 240, "edits that each test of exact histories makes; 240 are one round of all troubles")
	more  = flag.Uint64("judge.seed", 0, "added to the seed of each test of exact histories")
)

// Reads are delivered at once although writes wait for rows.
func TestReadsDoNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, dir := newJudged(t, 3, 1)
		defer os.RemoveAll(dir)
		j.start()
		for range 150 {
			j.edit(j.gen.Next().Edits[0])
			pause(100 * time.Millisecond)
		}
		pause(time.Minute)
		j.stopAll()
		j.closeLedger()
		slowest := map[bool]time.Duration{}
		for id, e := range j.edits {
			if j.lostReqs[id] {
				continue
			}
			if len(j.dest.events[id]) != 1 {
				t.Fatalf("%s %s was delivered %d times", e.Method, e.Path, len(j.dest.events[id]))
			}
			slowest[e.IsWrite()] = max(slowest[e.IsWrite()], j.dest.events[id][0].at.Sub(j.shown[id]))
		}
		t.Logf("the slowest read took %s, the slowest write %s", slowest[false], slowest[true])
		if slowest[false] > 400*time.Millisecond || slowest[true] > 3*time.Second {
			t.Errorf("a read waited %s, a write %s", slowest[false], slowest[true])
		}
	})
}
