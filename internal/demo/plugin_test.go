//go:build !lambda.norpc

package demo

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

// Why the plugin is not there is said as it is, and what to do about it.
func TestPluginThatCannotBeBuilt(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"no go":     {t.TempDir(), "no go command on the PATH"},
		"no source": {os.Getenv("PATH"), "does not find its source"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			t.Setenv("PATH", c.path)
			_, err := (&demo{out: io.Discard}).findPlugin(t.Context(), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "beside relay") {
				t.Errorf("got %v", err)
			}
		})
	}
}
