package objects_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/boltledger"
	"github.com/kong-cloudtrail/relay/internal/objects"
)

// bench is a joiner, what it reads, and its ledger.
type bench struct {
	t       *testing.T
	objects table
	ledger  *boltledger.Ledger
	joiner  *objects.Joiner
	late    int
	known   []string      // histories
	also    []audit.Entry // to be joined with the last write
}

func newBench(t *testing.T) *bench {
	l, err := boltledger.Open(filepath.Join(t.TempDir(), "ledger.db"), boltledger.Options{Source: "kong", Destination: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, ledger: l}
	b.restart(objects.Options{})
	return b
}

// restart is a new process on the same ledger.
func (b *bench) restart(o objects.Options) {
	o.Source, o.Ledger, o.Memory, o.Announced = &b.objects, b.ledger, b.ledger, b.ledger.Announced
	o.Observer = objects.Observer{Late: func(n int) { b.late += n }, Changed: func(h string) { b.known = append(b.known, h) }}
	b.joiner = objects.New(o)
}

// row adds a row of a route that is there at once.
func (b *bench) row(id, request, operation, entity string) {
	b.rowAt(id, request, operation, entity, 0)
}

// rowAt is row by a clock that differs.
func (b *bench) rowAt(id, request, operation, entity string, clock time.Duration) {
	b.objects.add(audit.Entry{ID: "o-" + id, RequestID: request, Timestamp: time.Now().Add(clock).Unix(), TTL: audit.NoTTL, Object: &audit.Object{
		ID: id, DAO: "routes", Key: "k", Operation: operation, Entity: entity,
	}}, time.Now())
}

func write(id, method, path string) audit.Entry {
	return audit.Entry{ID: id, RequestID: id, Method: method, Path: path, Status: 200, Timestamp: time.Now().Unix(), TTL: audit.NoTTL}
}

// join joins writes until none of them waits, as tails do, and returns how long it took.
func (b *bench) join(entries ...audit.Entry) (said map[string]string, took time.Duration) {
	b.t.Helper()
	begin := time.Now()
	said = map[string]string{}
	for len(entries) > 0 {
		var waiting []audit.Entry
		for i := range entries {
			if b.joiner.Hold(&entries[i]) {
				waiting = append(waiting, entries[i])
			}
		}
		ready, again, err := b.joiner.Join(context.Background(), audit.Writes{Entries: waiting, Live: true, Floor: 1, Through: time.Now().Unix()})
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range ready {
			said[e.ID] = e.Changes
		}
		entries = nil
		for _, e := range waiting {
			if _, ok := said[e.ID]; !ok {
				entries = append(entries, e)
			}
		}
		if len(entries) > 0 {
			pause(time.Until(again))
		}
	}
	return said, time.Since(begin)
}

// delivered records entries as delivered.
func (b *bench) delivered(entries ...audit.Entry) {
	var records []audit.Record
	for _, e := range entries {
		records = append(records, audit.Record{ID: e.ID, Timestamp: e.Timestamp, Retention: time.Hour, Outcome: audit.Delivered})
	}
	if err := b.ledger.Record(context.Background(), records); err != nil {
		b.t.Fatal(err)
	}
}

func TestCreateUpdateDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.row("1", "a", "create", `{"name":"orders","paths":["/a"],"tags":null}`)
		said, took := b.join(write("a", "POST", "/routes"))
		if want := `{"changes":[{"entity":"routes","key":"k","name":"orders","operation":"create","to":[{"path":"/name","value":"orders"},{"path":"/paths","value":["/a"]}],"history":"exact"}]}`; said["a"] != want {
			t.Errorf("create: %s", said["a"])
		}
		if took > 700*time.Millisecond {
			t.Errorf("a create waited %s", took)
		}
		pause(5 * time.Second)
		b.row("2", "b", "update", `{"name":"orders","paths":["/b"],"tags":null}`)
		said, took = b.join(write("b", "PATCH", "/routes/orders"))
		if want := `{"changes":[{"entity":"routes","key":"k","name":"orders","operation":"update","from":[{"path":"/paths/0","value":"/a"}],"to":[{"path":"/paths/0","value":"/b"}],"history":"exact"}]}`; said["b"] != want {
			t.Errorf("update: %s", said["b"])
		}
		if took > 2500*time.Millisecond {
			t.Errorf("an update waited %s", took)
		}
		pause(5 * time.Second)
		b.row("3", "c", "delete", `{"name":"orders","paths":["/b"],"tags":null}`)
		said, _ = b.join(write("c", "DELETE", "/routes/orders"))
		if !strings.Contains(said["c"], `"from":[{"path":"/name","value":"orders"},{"path":"/paths","value":["/b"]}],"history":"exact"`) {
			t.Errorf("delete: %s", said["c"])
		}
	})
}

// What was said of a write is said again, also by another process, and its rows do not
// count as late.
func TestSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.row("1", "a", "create", `{"name":"orders","paths":["/a"]}`)
		b.join(write("a", "POST", "/routes"))
		pause(5 * time.Second)
		b.row("2", "b", "update", `{"name":"orders","paths":["/b"]}`)
		e := write("b", "PATCH", "/routes/orders")
		said, _ := b.join(e)
		b.restart(objects.Options{})
		if again, took := b.join(e); again["b"] != said["b"] || took > 0 || !strings.Contains(said["b"], `"exact"`) {
			t.Errorf("said %s, then, after %s, %s", said["b"], took, again["b"])
		}
		if b.late != 0 {
			t.Errorf("%d rows came late", b.late)
		}
	})
}

// What must not be exact, and why.
func TestNotExact(t *testing.T) {
	for name, between := range map[string]func(b *bench){
		"an announced id has not shown up": func(b *bench) {
			if err := b.ledger.Announce(context.Background(), []string{"unseen"}, time.Now()); err != nil {
				b.t.Fatal(err)
			}
		},
		"a write without rows may have touched it": func(b *bench) {
			b.join(write("x", "PATCH", "/routes/orders"))
		},
		"a write without rows may have touched it as the route of a plugin that is called like a list": func(b *bench) {
			b.join(write("x", "PATCH", "/plugins/users/route"))
		},
		"the request of the row before is lost": func(b *bench) {
			b.row("5", "lost", "update", `{"name":"orders","paths":["/x"]}`)
			pause(time.Minute)
			b.join(write("y", "POST", "/services"))
		},
		"rows were purged": func(b *bench) {
			pause(time.Minute)
			b.objects.purge(time.Now())
		},
		"the ledger is another one": func(b *bench) {
			if err := b.ledger.Close(); err != nil {
				b.t.Fatal(err)
			}
			l, err := boltledger.Open(filepath.Join(b.t.TempDir(), "other.db"), boltledger.Options{Source: "kong", Destination: "test"})
			if err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { l.Close() })
			if err := l.Begin(context.Background()); err != nil {
				b.t.Fatal(err)
			}
			b.ledger = l
			b.restart(objects.Options{StartAt: time.Now().Unix()})
		},
		"rows were left out": func(b *bench) {
			pause(time.Minute)
			b.restart(objects.Options{StartAt: time.Now().Unix()})
		},
		"another row within the margin": func(b *bench) {
			pause(4 * time.Second)
			b.row("6", "near", "update", `{"name":"orders","paths":["/x"]}`)
			b.also = []audit.Entry{write("near", "PUT", "/routes/orders")}
			pause(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.row("1", "a", "create", `{"name":"orders","paths":["/a"]}`)
				e := write("a", "POST", "/routes")
				b.join(e)
				b.delivered(e)
				pause(5 * time.Second)
				between(b)
				if b.also == nil {
					pause(3 * time.Second)
				}
				b.row("9", "b", "update", `{"name":"orders","paths":["/b"]}`)
				if said, _ := b.join(append(b.also, write("b", "PUT", "/routes/orders"))...); strings.Contains(said["b"], `"exact"`) || !strings.Contains(said["b"], `"history"`) {
					t.Errorf("said %s", said["b"])
				}
			})
		})
	}
}

// A write without rows goes after two seconds, and rows that come afterwards are counted
// and move the state on.
func TestLateRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		e := write("a", "POST", "/routes")
		said, took := b.join(e)
		if said["a"] != `{"changes":[],"late":true}` || took < 2*time.Second || took > 2200*time.Millisecond {
			t.Errorf("after %s: %s", took, said["a"])
		}
		if values, _, err := b.ledger.Recall(context.Background(), []string{objects.MarkedLate("a")}); err != nil || values[0] == nil {
			t.Errorf("the ledger does not say so: %v", err)
		}
		b.delivered(e)
		b.row("1", "a", "create", `{"name":"orders"}`)
		pause(20 * time.Second)
		b.row("2", "b", "update", `{"name":"other"}`)
		said, _ = b.join(write("b", "PATCH", "/routes/orders"))
		if b.late != 1 || !strings.Contains(said["b"], `"from":[{"path":"/name","value":"orders"}]`) || !strings.Contains(said["b"], `"approximate"`) {
			t.Errorf("%d late rows; said %s", b.late, said["b"])
		}
	})
}

// Rows from before an upgrade of Kong have no time. They come with their requests.
func TestRowsWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		pause(time.Hour)
		e := write("a", "POST", "/routes")
		b.objects.add(audit.Entry{ID: "o-1", RequestID: "a", Timestamp: time.Now().Unix(), TimestampGuessed: true, TTL: audit.NoTTL, Object: &audit.Object{
			ID: "1", DAO: "routes", Key: "k", Operation: "create", Entity: `{"name":"orders"}`,
		}}, time.Now())
		if said, _ := b.join(e); !strings.Contains(said["a"], `"history":"exact"`) {
			t.Errorf("said %s", said["a"])
		}
	})
}

// A row without a time whose request is lost may be of any change.
func TestRowWithoutTimeOfALostRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		undated := func(id, request, operation, name string) {
			b.objects.add(audit.Entry{ID: "o-" + id, RequestID: request, Timestamp: time.Now().Unix(), TimestampGuessed: true, TTL: audit.NoTTL, Object: &audit.Object{
				ID: id, DAO: "routes", Key: "k", Operation: operation, Entity: `{"name":"` + name + `"}`,
			}}, time.Now())
		}
		for i, lost := range []bool{false, true} {
			pause(time.Minute)
			undated(fmt.Sprint(i, "1"), fmt.Sprint(i, "a"), "create", "a")
			e := write(fmt.Sprint(i, "a"), "POST", "/routes")
			b.join(e)
			b.delivered(e)
			pause(10 * time.Second)
			if lost {
				undated("lost", "lost", "update", "lost")
			}
			pause(time.Minute)
			undated(fmt.Sprint(i, "2"), fmt.Sprint(i, "b"), "update", "b")
			e = write(fmt.Sprint(i, "b"), "PUT", "/routes/k")
			said, _ := b.join(e)
			b.delivered(e)
			if strings.Contains(said[e.ID], `"history":"exact"`) == lost {
				t.Errorf("a row was lost: %t; said %s", lost, said[e.ID])
			}
		}
	})
}

// hanging is a source that answers nothing.
type hanging struct{ reads int }

func (h *hanging) Page(ctx context.Context, _ audit.Query) (audit.Page, error) {
	h.reads++
	<-ctx.Done()
	return audit.Page{}, ctx.Err()
}

// A log of rows that does not answer holds a tail up for a second, once in ten.
func TestRowsThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, source := newBench(t), &hanging{}
		b.joiner = objects.New(objects.Options{Source: source, Ledger: b.ledger, Memory: b.ledger})
		for i := range 10 {
			said, took := b.join(write(string(rune('a'+i)), "PATCH", "/routes/orders"))
			if len(said) != 1 || took > 3100*time.Millisecond {
				t.Errorf("after %s: %v", took, said)
			}
		}
		if source.reads > 4 {
			t.Errorf("%d reads", source.reads)
		}
	})
}

// A pass that finds no new write asks Kong for its rows once at the most.
func TestPassesWithoutWritesCostOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 20 {
			b.row(fmt.Sprint(i), fmt.Sprint("w", i), "update", fmt.Sprintf(`{"name":"orders","paths":["/%d"]}`, i))
			e := write(fmt.Sprint("w", i), "PUT", "/routes/orders")
			b.join(e)
			b.delivered(e)
			pause(10 * time.Second)
		}
		for i := range 100 {
			before := b.objects.reads
			for _, w := range []audit.Writes{{Live: true}, {Sweep: i%10 == 0}} {
				w.Floor, w.Through = 1, time.Now().Unix()
				if _, _, err := b.joiner.Join(context.Background(), w); err != nil {
					t.Fatal(err)
				}
				if n := b.objects.reads - before; n > 1 {
					t.Fatalf("pass %d asked %d times", i, n)
				}
				before = b.objects.reads
			}
			pause(3 * time.Second)
		}
		if n := b.objects.reads; n > 150 {
			t.Errorf("%d requests", n)
		}
	})
}
