//go:build !lambda.norpc

package demo

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// The plugin is built from source that is here. In the folder of another module, go would
// otherwise fetch one of that name and add it to go.mod, where GOFLAGS let it.
func TestPluginIsNotFetched(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the module proxy is asked for %s", r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer proxy.Close()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("go.mod", []byte("module example.com/other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"GOFLAGS": "-mod=mod", "GOPROXY": proxy.URL, "GOWORK": "off"} {
		t.Setenv(name, value)
	}
	d := &demo{out: io.Discard}
	if binary, err := d.findPlugin(t.Context(), t.TempDir()); err == nil {
		t.Errorf("found %s", filepath.Base(binary))
	}
}
