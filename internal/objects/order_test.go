package objects_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/objects"
)

// A change by a control plane whose clock is 3 s ahead, and whose row comes 2 s late, was
// made before the change that was seen last, although its time is later by 3 s.
func TestClocksOfControlPlanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.row("1", "a", "create", `{"name":"orders","paths":["/a"]}`)
		b.join(write("a", "POST", "/routes"))
		pause(time.Minute)
		b.row("2", "b", "update", `{"name":"orders","paths":["/b"]}`)
		b.join(write("b", "PATCH", "/routes/orders"))
		b.rowAt("3", "c", "update", `{"name":"orders","paths":["/c"]}`, time.Second)
		ahead := write("c", "PATCH", "/routes/orders")
		ahead.Timestamp++
		if said, _ := b.join(ahead); strings.Contains(said["c"], `"exact"`) {
			t.Errorf("by a clock that is ahead: %s", said["c"])
		}
		pause(8 * time.Second)
		b.row("4", "d", "update", `{"name":"orders","paths":["/d"]}`)
		if said, _ := b.join(write("d", "PATCH", "/routes/orders")); strings.Contains(said["d"], `"exact"`) {
			t.Errorf("after two changes whose order nothing tells: %s", said["d"])
		}
		pause(8 * time.Second)
		b.row("5", "e", "update", `{"name":"orders","paths":["/e"]}`)
		if said, _ := b.join(write("e", "PATCH", "/routes/orders")); !strings.Contains(said["e"], `"value":"/d"`) || !strings.Contains(said["e"], `"exact"`) {
			t.Errorf("long after: %s", said["e"])
		}
	})
}

// Of two changes in the same second, the next PATCH continues the one that has all that it
// did not name.
func TestContinuedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.row("1", "a", "create", `{"name":"orders","paths":["/a"],"tags":["x"]}`)
		b.join(write("a", "POST", "/routes"))
		pause(time.Minute)
		b.row("2", "b", "update", `{"name":"orders","paths":["/b"],"tags":["x"]}`)
		b.row("3", "c", "update", `{"name":"orders","paths":["/b"],"tags":["y"]}`)
		b.join(write("b", "PUT", "/routes/orders"), write("c", "PUT", "/routes/orders"))
		pause(10 * time.Second)
		b.row("4", "d", "update", `{"name":"orders","paths":["/d"],"tags":["y"]}`)
		patch := write("d", "PATCH", "/routes/orders")
		patch.Payload = `{"paths":["/d"]}`
		want := `"from":[{"path":"/paths/0","value":"/b"}],"to":[{"path":"/paths/0","value":"/d"}],"history":"exact"`
		if said, _ := b.join(patch); !strings.Contains(said["d"], want) {
			t.Errorf("a PATCH that fits one of the two: %s", said["d"])
		}
		pause(10 * time.Second)
		b.row("5", "e", "update", `{"name":"orders","paths":["/e"],"tags":["y"]}`)
		b.row("6", "f", "update", `{"name":"orders","paths":["/f"],"tags":["y"]}`)
		b.join(write("e", "PUT", "/routes/orders"), write("f", "PUT", "/routes/orders"))
		pause(10 * time.Second)
		b.row("7", "g", "update", `{"name":"orders","paths":["/g"],"tags":["y"]}`)
		patch = write("g", "PATCH", "/routes/orders")
		patch.Payload = `{"paths":["/g"]}`
		if said, _ := b.join(patch); strings.Contains(said["g"], `"exact"`) {
			t.Errorf("a PATCH that fits both: %s", said["g"])
		}
	})
}

// An update waits two seconds for earlier changes that may still show up, until every
// write has been announced for ten minutes. A new process knows that from the ledger.
func TestAnnouncedWritesWaitLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n := newBench(t), 0
		edit := func(operation, method string, announced bool) (string, time.Duration) {
			n++
			id := fmt.Sprint("w", n)
			if announced {
				if err := b.ledger.Announce(context.Background(), []string{id}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			b.row(fmt.Sprint(n), id, operation, fmt.Sprintf(`{"name":"orders","paths":["/%d"]}`, n))
			said, took := b.join(write(id, method, "/routes/orders"))
			pause(30 * time.Second)
			return said[id], took
		}
		expect := func(when string, announced bool, least, most time.Duration) {
			t.Helper()
			if said, took := edit("update", "PUT", announced); took < least || took > most || !strings.Contains(said, `"exact"`) {
				t.Errorf("%s an update waited %s: %s", when, took, said)
			}
		}
		edit("create", "POST", true)
		expect("at first", true, 2*time.Second, 2500*time.Millisecond)
		for range 20 {
			edit("update", "PUT", true)
		}
		expect("after ten minutes", true, 0, 700*time.Millisecond)
		b.restart(objects.Options{})
		expect("after a restart", true, 0, 700*time.Millisecond)
		expect("without an announcement", false, 2*time.Second, 2500*time.Millisecond)
		expect("after one without an announcement", true, 2*time.Second, 2500*time.Millisecond)
		b.restart(objects.Options{})
		expect("after that and a restart", true, 2*time.Second, 2500*time.Millisecond)
	})
}

// An id that was announced and is missing for long forbids an exact history, unless a
// PATCH changed just what it named, or a single field where Kong does not say what it named.
func TestIDThatIsMissingForLong(t *testing.T) {
	for name, c := range map[string]struct {
		method, payload, paths, tags string
		exact                        bool
	}{
		"a PATCH of one field":                 {"PATCH", "", "/b", "x", true},
		"a PATCH of two fields":                {"PATCH", "", "/b", "y", false},
		"a PATCH that names what it changed":   {"PATCH", `{"paths":["/b"],"tags":["y"]}`, "/b", "y", true},
		"a PATCH that does not name all of it": {"PATCH", `{"paths":["/b"]}`, "/b", "y", false},
		"a PUT":                                {"PUT", `{"paths":["/b"],"tags":["x"]}`, "/b", "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.row("1", "a", "create", `{"name":"orders","paths":["/a"],"tags":["x"]}`)
				b.join(write("a", "POST", "/routes"))
				pause(time.Minute)
				if err := b.ledger.Announce(context.Background(), []string{"missing"}, time.Now()); err != nil {
					t.Fatal(err)
				}
				pause(time.Minute)
				b.row("2", "b", "update", fmt.Sprintf(`{"name":"orders","paths":["%s"],"tags":["%s"]}`, c.paths, c.tags))
				e := write("b", c.method, "/routes/orders")
				e.Payload = c.payload
				if said, _ := b.join(e); strings.Contains(said["b"], `"exact"`) != c.exact {
					t.Errorf("said %s", said["b"])
				}
			})
		})
	}
}
