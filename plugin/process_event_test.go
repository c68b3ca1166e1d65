package main_test

import (
	"strings"
	"testing"

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
	// Long enough for a busy machine: the sender must not become idle before the event.
	const interval = 1000
	all := map[string]any{"min_interval_ms": interval}
	ignore := map[string]any{"min_interval_ms": interval, "ignore_paths": []string{"^/status"}}
	none := plugintest.Event{Method: "GET"}
	for name, test := range map[string]struct {
		config map[string]any
		event  plugintest.Event
		ids    int
		sent   bool
	}{
		"id":                   {all, answered("a"), 1, true},
		"empty id":             {all, answered(""), 0, true},
		"no id":                {all, none, 0, true}, // it looks like an empty one
		"no id, filtered":      {ignore, none, 0, false},
		"ignored":              {ignore, plugintest.Event{Path: "/status", Headers: map[string]string{idHeader: "a"}}, 0, false},
		"no response in it":    {ignore, plugintest.Event{Serialized: `{}`, Headers: map[string]string{idHeader: "a"}}, 0, true},
		"Kong does not answer": {all, plugintest.Event{Fail: []string{"kong.response.get_header"}}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
			i := instance(t, h, r.config(test.config))
			logEvent(t, h, i, answered("before")) // it waits for its trigger
			before := h.Waits()
			err := h.Log(t.Context(), i, test.event)
			if (err != nil) != (test.event.Fail != nil) {
				t.Error(err)
			}
			if n := h.Waits() - before; n != 1 {
				t.Errorf("%d waits for the event", n)
			}
			if test.sent {
				r.wait(t, 1+test.ids, 2)
			}
			logEvent(t, h, instance(t, h, r.config(all)), answered("marker"))
			want := 2
			if test.sent {
				want = 3
			}
			r.wait(t, 2+test.ids, want)
			if ids, triggers := r.noted(); ids != 2+test.ids || triggers != want {
				t.Errorf("%d ids in %d triggers", ids, triggers)
			}
		})
	}
}
