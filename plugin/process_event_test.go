package main_test

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/plugintest"
)

func TestWhatAnEventCanHold(t *testing.T) {
	odd := "a\xff\x00\r\n\"b"
	for name, test := range map[string]struct {
		event  plugintest.Event
		config map[string]any
		ids    int
		sent   bool
		calls  int
	}{
		"no headers":           {plugintest.Event{Method: "GET"}, nil, 0, false, 2},
		"no id":                {plugintest.Event{Headers: map[string]string{"X-Kong-Request-Id": "a", "Via": odd}}, nil, 0, false, 2},
		"empty id":             {plugintest.Event{Headers: map[string]string{idHeader: "", "Via": odd}}, nil, 0, true, 2},
		"empty id, ignored":    {answered(""), map[string]any{"methods": []string{"GET"}}, 0, false, 1},
		"empty id, filtered":   {plugintest.Event{Method: "GET", Headers: map[string]string{idHeader: "", "Via": odd}}, map[string]any{"methods": []string{"GET"}}, 0, true, 1},
		"no id, filtered":      {plugintest.Event{Method: "GET", Headers: map[string]string{"Via": odd}}, map[string]any{"methods": []string{"GET"}}, 0, false, 1},
		"odd id, filtered":     {answered(odd), map[string]any{"methods": []string{"POST"}}, 0, true, 1},
		"headers fail":         {plugintest.Event{Headers: map[string]string{idHeader: ""}, Fail: []string{"kong.response.get_headers"}}, nil, 0, false, 2},
		"odd id":               {answered(odd), nil, 0, true, 1},
		"two ids":              {answered("a, b"), nil, 0, true, 1},
		"long id":              {answered(strings.Repeat("a", 1<<20)), nil, 0, true, 1},
		"header fails":         {plugintest.Event{Fail: []string{"kong.response.get_header"}}, nil, 0, true, 1},
		"odd path":             {plugintest.Event{Path: "/a?q=" + odd, Headers: map[string]string{idHeader: "a"}}, nil, 1, true, 1},
		"odd path, filtered":   {plugintest.Event{Path: "/a?q=" + odd, Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 1, true, 1},
		"odd path, ignored":    {plugintest.Event{Path: "/status?q=\xff", Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 0, false, 1},
		"the Admin API's path": {plugintest.Event{Path: "/admin-api/status", UpstreamURI: "/status?a", Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 0, false, 1},
		"method":               {answered("a"), map[string]any{"methods": []string{"POST"}}, 1, true, 1},
		"other method":         {answered("a"), map[string]any{"methods": []string{"GET"}}, 0, false, 1},
		"empty lists":          {answered("a"), map[string]any{"methods": map[string]any{}, "ignore_paths": []string{}}, 1, true, 1},
		"no request in it":     {plugintest.Event{Serialized: `{"response":{"headers":{"x-kong-admin-request-id":"a"}}}`}, map[string]any{"methods": []string{"GET"}}, 1, true, 1},
		"two ids in it":        {plugintest.Event{Serialized: `{"response":{"headers":{"x-kong-admin-request-id":["a","b"]}}}`}, map[string]any{"methods": []string{"GET"}}, 0, true, 1},
		"no response in it":    {plugintest.Event{Serialized: `{"request":{"method":"GET"}}`, Headers: map[string]string{idHeader: "a"}}, map[string]any{"methods": []string{"GET"}}, 1, true, 2},
		"nothing in it":        {plugintest.Event{Serialized: `null`, Headers: map[string]string{idHeader: "a"}}, map[string]any{"methods": []string{"GET"}}, 1, true, 2},
		"serialize fails":      {plugintest.Event{Headers: map[string]string{idHeader: "a"}, Fail: []string{"kong.log.serialize"}}, map[string]any{"methods": []string{"GET"}}, 0, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
			i := instance(t, h, r.config(test.config))
			err := h.Log(t.Context(), i, test.event)
			if (err != nil) != (test.event.Fail != nil) {
				t.Error(err)
			}
			if test.sent {
				r.wait(t, test.ids, 1)
			}
			// Another one, through an instance without filters, comes after it.
			logEvent(t, h, instance(t, h, r.config(nil)), answered("marker"))
			r.wait(t, test.ids+1, 1)
			ids, calls := r.noted()
			if ids != test.ids+1 || !test.sent && calls != 1 {
				t.Errorf("%d ids in %d triggers", ids, calls)
			}
			total := 0
			for _, n := range h.Calls() {
				total += n
			}
			if total != test.calls+1 {
				t.Errorf("calls of the PDK: %v", h.Calls())
			}
		})
	}
}

// While events come, an event ends with the question that it asks, so the plugin cannot
// ask a second one.
func TestEventEndsWithItsQuestion(t *testing.T) {
	ignore := map[string]any{"ignore_paths": []string{"^/status"}}
	none := plugintest.Event{Method: "GET"}
	for name, test := range map[string]struct {
		config map[string]any
		event  plugintest.Event
		ids    int
		polls  int
	}{
		"id":                   {nil, answered("a"), 1, 0},
		"empty id":             {nil, answered(""), 0, 1},
		"no id":                {nil, none, 0, 1}, // it looks like an empty one
		"no id, filtered":      {ignore, none, 0, 0},
		"ignored":              {ignore, plugintest.Event{Path: "/status", Headers: map[string]string{idHeader: "a"}}, 0, 0},
		"no response in it":    {ignore, plugintest.Event{Serialized: `{}`, Headers: map[string]string{idHeader: "a"}}, 0, 1},
		"Kong does not answer": {nil, plugintest.Event{Fail: []string{"kong.response.get_header"}}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
			i := instance(t, h, r.config(test.config))
			// Events come as long as the relay has not answered the first one's trigger, for which
			// that event waits. It belongs to another worker, whose instance has the same sender.
			first, held := instance(t, h, r.config(test.config)), r.hold()
			waits := h.Waits()
			var other sync.WaitGroup
			other.Go(func() { logEvent(t, h, first, answered("held")) })
			<-held.arrived
			for begin := time.Now(); h.Waits() < waits+2; runtime.Gosched() { // for its question and for its end
				if time.Since(begin) > time.Minute {
					t.Fatal("the first event does not wait")
				}
			}
			logEvent(t, h, i, answered("before"))
			before := h.Waits()
			err := h.Log(t.Context(), i, test.event)
			if (err != nil) != (test.event.Fail != nil) {
				t.Error(err)
			}
			if n := h.Waits() - before; n != 1 {
				t.Errorf("%d waits for the event", n)
			}
			close(held.open)
			other.Wait()
			// One trigger for the first event, one for the ids since, and a separate one for a poll.
			ids, triggers := 2+test.ids, 2+test.polls
			r.wait(t, ids, triggers)
			logEvent(t, h, i, answered("marker"))
			r.wait(t, ids+1, triggers+1)
			if gotIDs, got := r.noted(); gotIDs != ids+1 || got != triggers+1 {
				t.Errorf("%d ids in %d triggers", gotIDs, got)
			}
		})
	}
}
