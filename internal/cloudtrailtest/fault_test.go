package cloudtrailtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// running starts a server for the length of a test.
func running(t *testing.T, s *Server) (url string) {
	t.Helper()
	r := httptest.NewServer(s)
	t.Cleanup(r.Close)
	return r.URL
}

func post(ctx context.Context, c *http.Client, base string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/PutAuditEvents?"+toChannel, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

func TestScript(t *testing.T) {
	s := unsigned()
	fails := func(code string) Faults { return Faults{Calls: map[string]float64{code: 1}} }
	s.Script(
		fails("ThrottlingException"), fails("InternalFailure"), fails("ServiceUnavailable"), fails("AccessDeniedException"), fails("ChannelUnsupportedSchema"),
		Faults{IDs: map[string]string{"a": "Throttling"}}, Faults{Omit: 1},
	)
	for _, want := range []struct {
		code   string
		status int
	}{{"ThrottlingException", 400}, {"InternalFailure", 500}, {"ServiceUnavailable", 503}, {"AccessDeniedException", 403}, {"ChannelUnsupportedSchema", 400}} {
		if a := put(t, s, toChannel, good("a")); a.code() != want.code || a.status != want.status {
			t.Errorf("got %v, want %v", a, want)
		}
	}
	if a := put(t, s, toChannel, good("a", "c")); a.status != 200 || len(a.Successful) != 1 || a.Successful[0].ID != "c" || len(a.Failed) != 1 || a.Failed[0].ErrorCode != "Throttling" {
		t.Errorf("got %v", a)
	}
	if a := put(t, s, toChannel, good("b")); a.status != 200 || len(a.Successful)+len(a.Failed) != 0 {
		t.Errorf("got %v", a)
	}
	if s.Times("b") != 0 || s.Counts().Omitted != 1 {
		t.Errorf("an event that was left out was accepted: %+v", s.Counts())
	}
	if a := put(t, s, toChannel, good("a", "b")); len(a.Successful) != 2 {
		t.Errorf("after the script: %v", a)
	}
}

func TestStandingFaults(t *testing.T) {
	outcome := func(seed uint64) (string, awstest.Counts) {
		s := unsigned(func(o *Options) { o.CallsPerSecond = -1 })
		s.SetFaults(Faults{
			Seed: seed, Calls: map[string]float64{"ThrottlingException": .2, "InternalFailure": .2},
			Events: map[string]float64{"Throttling": .1, "InternalFailure": .1}, Omit: .1, IDs: map[string]string{"poison": "InvalidData"},
		})
		var log string
		for range 100 {
			a := put(t, s, toChannel, good("a", "b", "c", "poison"))
			log += fmt.Sprintln(a.code(), len(a.Successful), a.Failed)
			if a.status == 200 && !slices.ContainsFunc(a.Failed, func(f struct{ ID, ErrorCode, ErrorMessage string }) bool {
				return f.ID == "poison" && f.ErrorCode == "InvalidData"
			}) {
				t.Fatalf("poison was not refused: %v", a)
			}
		}
		return log, s.Counts()
	}
	first, c := outcome(1)
	again, _ := outcome(1)
	other, _ := outcome(2)
	if first != again || first == other {
		t.Error("the dice do not follow the seed")
	}
	// 100 calls, .36 of them refused; of some 192 good events a tenth each.
	if c.Refused < 20 || c.Refused > 52 || c.Omitted < 8 || c.Omitted > 35 || c.Codes["Throttling"] < 8 || c.Events < 100 {
		t.Errorf("counts %+v", c)
	}
	if got := slices.Sorted(maps.Keys(c.Codes)); len(got) != 4 {
		t.Errorf("codes %v", got)
	}
}

func TestConnectionFaults(t *testing.T) {
	s := unsigned()
	url := running(t, s)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s.Script(Faults{Reset: 1}, Faults{LoseAnswer: 1}, Faults{Garbage: 1})

	if _, _, err := post(t.Context(), client, url, good("reset")); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reset: %v", err)
	}
	if _, _, err := post(t.Context(), client, url, good("lost")); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("lost answer: %v", err)
	}
	status, b, err := post(t.Context(), client, url, good("garbage"))
	if err != nil || status != 200 || jsontext.Value(b).IsValid() {
		t.Errorf("garbage: %d %s, %v", status, b, err)
	}
	if s.Times("reset") != 0 || s.Times("lost") != 1 || s.Times("garbage") != 1 || s.Counts().Lost != 2 {
		t.Errorf("counts %+v", s.Counts())
	}

	s.SetDown(true)
	if _, _, err := post(t.Context(), client, url, good("down")); err == nil {
		t.Error("an answer during an outage")
	}
	s.SetDown(false)
	if status, _, err := post(t.Context(), client, url, good("up")); err != nil || status != 200 || s.Times("down") != 0 || s.Times("up") != 1 {
		t.Errorf("after the outage: %d, %v", status, err)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := unsigned()
		s.SetFaults(Faults{Delay: 30 * time.Millisecond})
		start := time.Now()
		if a := put(t, s, toChannel, good("slow")); a.status != 200 || time.Since(start) != 30*time.Millisecond {
			t.Errorf("got %v after %v", a, time.Since(start))
		}
		// A client that gives up does not take its request back.
		s.Script(Faults{Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "POST", "/PutAuditEvents?"+toChannel, bytes.NewReader(good("given-up"))))
		if took := time.Since(start); s.Times("given-up") != 1 || took != 1030*time.Millisecond {
			t.Errorf("%d events after %v", s.Times("given-up"), took)
		}
	})
}
