package cloudtrail

import (
	"reflect"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestEventFieldLimits(t *testing.T) {
	s := newDestination(t, Options{})
	for _, c := range []struct {
		path  string
		limit int
		set   func(*audit.Entry, string)
		get   func(event) string
	}{
		{"version", 256, func(e *audit.Entry, v string) { e.KongVersion = v }, func(e event) string { return e.Version }},
		{
			"userIdentity.principalId", 1024,
			func(e *audit.Entry, v string) { e.RBACUserID = v },
			func(e event) string { return e.UserIdentity.PrincipalID },
		},
		{
			"userIdentity.details.rbac_user_name", 1024,
			func(e *audit.Entry, v string) { e.RBACUserID, e.RBACUserName = "u", v },
			func(e event) string { return e.UserIdentity.Details["rbac_user_name"] },
		},
		{
			"userIdentity.details.request_source", 1024,
			func(e *audit.Entry, v string) { e.RBACUserID, e.RequestSource = "u", v },
			func(e event) string { return e.UserIdentity.Details["request_source"] },
		},
		{"eventName", 1024, func(e *audit.Entry, v string) { e.Method, e.Path = v[:3], v[3:] }, func(e event) string { return e.EventName }},
		{"UID", 1024, func(e *audit.Entry, v string) { e.ID = v }, func(e event) string { return e.UID }},
	} {
		t.Run(c.path, func(t *testing.T) {
			for _, fits := range []string{
				strings.Repeat("x", c.limit),
				strings.Repeat(`"`, c.limit),
				strings.Repeat("\x01", c.limit),
				strings.Repeat("é", c.limit/2),
			} {
				e := audit.Entry{ID: "a", TTL: audit.NoTTL}
				c.set(&e, fits)
				_, data := s.Event(&e)
				got, _, a := checkEvent(t, data)
				if c.get(got) != fits || len(a.Truncated) != 0 {
					t.Errorf("%d bytes were cut to %d", len(fits), len(c.get(got)))
				}
				e = audit.Entry{ID: "a", TTL: audit.NoTTL}
				large := fits + "é"
				c.set(&e, large)
				_, data = s.Event(&e)
				got, _, a = checkEvent(t, data)
				if c.get(got) != fits {
					t.Errorf("%d bytes gave %d, want %d", len(large), len(c.get(got)), len(fits))
				}
				a.wantCut(t, c.path, large)
			}
		})
	}
}

func TestRequestParametersLimit(t *testing.T) {
	s := newDestination(t, Options{})
	const around = len(`{"payload":}`)
	put := func(payload, path string) (event, parameters, additional) {
		_, data := s.Event(&audit.Entry{ID: "a", RequestID: "a", Path: path, Payload: payload})
		return checkEvent(t, data)
	}
	t.Run("object that just fits", func(t *testing.T) {
		want := object(100_000 - around)
		e, p, a := put(want, "/x")
		if string(p.Payload) != want || len(e.RequestParameters) != 100_000 || len(a.Truncated) != 0 {
			t.Errorf("payload of %d bytes gave %d, in %d", len(want), len(p.Payload), len(e.RequestParameters))
		}
	})
	t.Run("object of a byte more", func(t *testing.T) {
		payload := object(100_000 - around + 1)
		e, p, a := put(payload, "/x")
		if got := text(t, p.Payload); !strings.HasPrefix(payload, got) || len(e.RequestParameters) != 100_000 {
			t.Errorf("%d bytes in %d", len(got), len(e.RequestParameters))
		}
		a.wantCut(t, "requestParameters.payload", payload)
	})
	t.Run("object of 300 kB, cut inside no rune", func(t *testing.T) {
		payload := `{"k":"` + strings.Repeat("€\n\"", 60_000) + `"}`
		e, p, a := put(payload, "/x")
		got := text(t, p.Payload)
		if !strings.HasPrefix(payload, got) || len(e.RequestParameters) < 99_990 {
			t.Errorf("%d bytes in %d", len(got), len(e.RequestParameters))
		}
		a.wantCut(t, "requestParameters.payload", payload)
	})
	t.Run("string that just fits", func(t *testing.T) {
		payload := strings.Repeat("p", 100_000-around-2)
		e, p, a := put(payload, "/x")
		if text(t, p.Payload) != payload || len(e.RequestParameters) != 100_000 || len(a.Truncated) != 0 {
			t.Errorf("payload of %d bytes gave %d", len(payload), len(p.Payload))
		}
	})
	t.Run("query and payload, both too large", func(t *testing.T) {
		query, payload := strings.Repeat("q", 150_000), strings.Repeat("p", 150_000)
		e, p, a := put(payload, "/x?"+query)
		if len(e.RequestParameters) != 100_000 || !strings.HasPrefix(query, p.Query) || p.Query == "" {
			t.Errorf("requestParameters of %d bytes, query of %d", len(e.RequestParameters), len(p.Query))
		}
		a.wantCut(t, "requestParameters.payload", payload)
		a.wantCut(t, "requestParameters.queryParameters", query)
	})
	t.Run("query alone", func(t *testing.T) {
		query := strings.Repeat("q", 150_000)
		e, _, a := put("", "/x?"+query)
		if len(e.RequestParameters) != 100_000 {
			t.Errorf("requestParameters of %d bytes", len(e.RequestParameters))
		}
		a.wantCut(t, "requestParameters.queryParameters", query)
	})
	t.Run("object that is too deep is a string", func(t *testing.T) {
		deep := strings.Repeat(`{"a":`, maxDepth) + `{}` + strings.Repeat(`}`, maxDepth)
		if _, p, _ := put(deep, "/x"); text(t, p.Payload) != deep {
			t.Error("embedded")
		}
		flat := strings.Repeat(`{"a":`, maxDepth-3) + `{"b":"[[{\"","c":[` + strings.Repeat("[],", maxDepth) + `[]]}` + strings.Repeat(`}`, maxDepth-3)
		if _, p, _ := put(flat, "/x"); !new(writer).isObject(string(p.Payload)) {
			t.Error("not embedded, though it is as deep as may be")
		}
	})
}

func TestAdditionalEventDataLimit(t *testing.T) {
	s := newDestination(t, Options{})
	long := strings.Repeat("\x01\"ü", 40_000)
	e := audit.Entry{
		ID: strings.Repeat("i", 2000), RequestID: long, Timestamp: 1 << 60, ClientIP: long, Method: long, Path: long + "?" + long,
		Status: 1 << 60, TTL: 1 << 60, Workspace: long, Payload: long, RemovedFromPayload: long, Signature: long,
		RBACUserName: long, RequestSource: long, Unknown: long, KongVersion: long, Verification: audit.Verification(long),
	}
	_, data := s.Event(&e)
	_, _, a := checkEvent(t, data)
	if len(data) < 120_000 {
		t.Errorf("only %d bytes of an event", len(data))
	}
	for _, key := range []string{
		"workspace", "method", "signature", "signatureVerification", "clientIP", "requestID",
		"rbac_user_name", "request_source", "removedFromPayload", "kong",
	} {
		a.wantCut(t, "additionalEventData."+key, long)
	}

	t.Run("the list of what was cut fits into its reserve", func(t *testing.T) {
		s := newDestination(t, Options{Hostname: "https://" + strings.Repeat("h", 2000)})
		for _, user := range []string{"", long} {
			v := reflect.ValueOf(&e).Elem()
			for _, field := range v.Fields() {
				if field.Kind() == reflect.String {
					field.SetString(long)
				}
			}
			e.RBACUserID = user
			_, data := s.Event(&e)
			all, _, a := checkEvent(t, data)
			_, list, _ := strings.Cut(string(all.AdditionalEventData), `,"truncated":`)
			if got := len(`,"truncated":`) + len(list); len(a.Truncated) < 15 || got > truncatedReserve {
				t.Errorf("%d members, %d bytes", len(a.Truncated), got)
			}
		}
	})
	t.Run("removed keys alone may be long", func(t *testing.T) {
		want := strings.Repeat("k", 24_000)
		_, data := s.Event(&audit.Entry{ID: "a", RequestID: "a", RemovedFromPayload: want})
		if _, _, a := checkEvent(t, data); a.RemovedFromPayload != want || len(a.Truncated) > 0 {
			t.Errorf("%d bytes", len(a.RemovedFromPayload))
		}
	})
	t.Run("unknown fields that are too large are a string", func(t *testing.T) {
		unknown := object(28_000)
		_, data := s.Event(&audit.Entry{ID: "a", RequestID: "a", Unknown: unknown})
		_, _, a := checkEvent(t, data)
		if got := text(t, a.Kong); !strings.HasPrefix(unknown, got) || len(got) < 20_000 {
			t.Errorf("%d bytes", len(got))
		}
		a.wantCut(t, "additionalEventData.kong", unknown)
	})
}

func TestEventReplacesWhatIsNotUTF8(t *testing.T) {
	s := newDestination(t, Options{})
	_, data := s.Event(&audit.Entry{
		ID: "a", RequestID: "a", Method: "GET\xff", Path: "/\xc3?q=\xff\xfe\x00", Payload: "{\"k\":\"\xed\xa0\x80\"}", Unknown: "{\"u\":\"\xff\"}",
	})
	e, p, a := checkEvent(t, data)
	if e.EventName != "GET\ufffd/\ufffd" || p.Query != "q=\ufffd\ufffd\x00" {
		t.Errorf("eventName %q, query %q", e.EventName, p.Query)
	}
	if string(p.Payload) != "{\"k\":\"\ufffd\ufffd\ufffd\"}" || string(a.Kong) != "{\"u\":\"\ufffd\"}" {
		t.Errorf("payload %s, kong %s", p.Payload, a.Kong)
	}
}
