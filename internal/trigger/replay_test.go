package trigger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
)

func TestHandlerRefusesReplays(t *testing.T) {
	r := newRelay(Options{})
	now := time.Now()
	for i, want := range []int{202, 409, 409} {
		if code, _, _ := answerOf(t, r, signed(t, secretA, "msg_1", now, `{}`)); code != want {
			t.Errorf("attempt %d: %d, want %d", i+1, code, want)
		}
	}
	// The claim comes last: a forged request must not take the id from the true one.
	forged := signed(t, secretB, "msg_2", now, `{}`)
	answerOf(t, r, forged)
	if code, _, _ := answerOf(t, r, signed(t, secretA, "msg_2", now, `{}`)); code != 202 {
		t.Errorf("a forged request took the id: %d", code)
	}
}

func TestHandlerAsksTheLedgerForReplays(t *testing.T) {
	claimed := map[string]time.Duration{}
	var down error
	r := newRelay(Options{ReserveNonce: func(_ context.Context, id string, d time.Duration) (bool, error) {
		_, again := claimed[id]
		claimed[id] = d
		return !again, down
	}})
	now := time.Now()
	if code, _, _ := answerOf(t, r, signed(t, secretA, "msg_1", now, `{}`)); code != 202 || claimed["msg_1"] < 2*Tolerance {
		t.Errorf("%d, claimed for %v", code, claimed["msg_1"])
	}
	if code, _, _ := answerOf(t, r, signed(t, secretA, "msg_1", now, `{}`)); code != 409 {
		t.Errorf("%d for a replay", code)
	}
	down = errors.New("ledger is down")
	if code, _, header := answerOf(t, r, signed(t, secretA, "msg_3", now, `{}`)); code != 503 || header.Get("Retry-After") == "" {
		t.Errorf("%d %v while the ledger is down", code, header)
	}
	down, claimed = nil, map[string]time.Duration{}
	for id, want := range map[string]int{"msg_1": 409, "msg_3": 202} {
		if code, _, _ := answerOf(t, r, signed(t, secretA, id, now, `{}`)); code != want {
			t.Errorf("%d for %s when the ledger is back", code, id)
		}
	}
	if _, again := claimed["msg_1"]; again {
		t.Error("the ledger was asked for what this process knows")
	}
}

// A message that was caught on its way takes one of the rate, however often it is sent.
func TestHandlerBearsAFloodOfReplays(t *testing.T) {
	now := time.Now()
	r := newRelay(Options{
		Rate: 50, Now: func() time.Time { return now },
		ReserveNonce: func(_ context.Context, id string, _ time.Duration) (bool, error) { return id != "msg_caught", nil },
	})
	statuses := map[int]int{}
	for i := range 10_000 {
		code, _, _ := answerOf(t, r, signed(t, secretA, "msg_caught", now, `{}`))
		statuses[code]++
		if i%200 == 100 {
			code, _, _ := answerOf(t, r, signed(t, secretA, fmt.Sprint("msg_", i), now, `{}`))
			statuses[code]++
		}
	}
	if statuses[409] != 10_000 || statuses[202] != 49 || statuses[429] != 1 {
		t.Errorf("statuses %v", statuses)
	}
}

func TestNoncesAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := recent[struct{}]{most: maxNonces, keep: time.Minute}
	fresh := func(id string) bool {
		_, used := c.loadOrStore(now, id, struct{}{})
		return !used
	}
	if !fresh("a") || fresh("a") {
		t.Error("an id is free once")
	}
	c.delete("a")
	if !fresh("a") {
		t.Error("taken although it was forgotten")
	}
	now = now.Add(59 * time.Second)
	if fresh("a") {
		t.Error("forgotten too early")
	}
	now = now.Add(2 * time.Minute)
	fresh("b")
	now = now.Add(2 * time.Minute)
	fresh("c")
	if !fresh("a") {
		t.Error("never forgotten")
	}
	for i := range 3 * maxNonces {
		fresh("x" + strconv.Itoa(i))
	}
	if n := len(c.cur) + len(c.prev); n > 2*maxNonces {
		t.Errorf("%d ids are kept", n)
	}
}
