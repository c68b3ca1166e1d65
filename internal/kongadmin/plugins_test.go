package kongadmin

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestPlugins(t *testing.T) {
	kong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/plugins" || r.Header.Get("Kong-Admin-Token") != secret:
			w.WriteHeader(http.StatusNotFound)
		case r.FormValue("offset") == "":
			_, _ = w.Write([]byte(`{"data":[{"name":"key-auth","enabled":true,"config":{"key_names":["apikey"]}},
				{"name":"cloudtrail-relay","enabled":true,"config":{"relay_url":"http://relay:8080","lambda_function":null}}],"offset":"x"}`))
		default:
			_, _ = w.Write([]byte(`{"data":[{"name":"http-log","enabled":false,"config":{"http_endpoint":"http://kong:hunter2@relay:8080/v1/http-log"}}],"next":null}`))
		}
	}))
	defer kong.Close()
	c := newClient(t, Options{URL: kong.URL, Token: token(secret)})
	list, err := c.Plugins(t.Context())
	want := []Plugin{{"key-auth", true, ""}, {"cloudtrail-relay", true, "http://relay:8080"}, {"http-log", false, "http://relay:8080/v1/http-log"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%v, %v", list, err)
	}
	for body, says := range map[string]string{`{"data":[{"name":1}]}`: "not a list of plugins", `<html>` + secret: "not a list of plugins"} {
		odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		_, err := newClient(t, Options{URL: odd.URL, Token: token(secret)}).Plugins(t.Context())
		odd.Close()
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, err := newClient(t, Options{URL: kong.URL}).Plugins(t.Context()); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("without a token: %v", err)
	}
}
