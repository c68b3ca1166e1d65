package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func TestDump(t *testing.T) {
	out, err := exec.Command(built(t, "cloudtrail-relay"), "-dump", "-kong-prefix", "/usr/local/kong").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := jsontext.Value(bytes.Clone(out))
	if err := got.Indent(jsontext.WithIndent("  ")); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/dump.golden.json"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		t.Errorf("the schema that Kong gets has changed; %s should be:\n%s", golden, got)
	}

	// The envelope is go-pdk's: beside one that go-pdk itself prints.
	derived, err := exec.Command(built(t, "empty"), "-dump", "-kong-prefix", "/usr/local/kong").Output()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := shape(t, out), shape(t, derived); a != b {
		t.Errorf("the envelope is\n%s\nand go-pdk's is\n%s", a, b)
	}
}

// shape is a dump without what differs between plugins.
func shape(t *testing.T, dump []byte) string {
	t.Helper()
	var d struct {
		Protocol, SocketPath string
		Plugins              []map[string]any
	}
	if err := json.Unmarshal(dump, &d, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	name, _ := d.Plugins[0]["Name"].(string)
	schema, _ := d.Plugins[0]["Schema"].(map[string]any)
	if schema["name"] != name {
		t.Errorf("%v is called %v in its schema", name, schema["name"])
	}
	d.Plugins[0]["Schema"], d.Plugins[0]["Name"] = "…", "…"
	d.SocketPath = strings.ReplaceAll(d.SocketPath, name, "…")
	data, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The plugin's name does not depend on the executable's.
func TestNameOfTheExecutable(t *testing.T) {
	other := filepath.Join(t.TempDir(), "plugin")
	if err := os.Link(built(t, "cloudtrail-relay"), other); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(other, "-dump", "-kong-prefix", "/x").Output()
	if err != nil || !bytes.HasPrefix(out, []byte(`{"Protocol":"ProtoBuf:1","SocketPath":"/x/cloudtrail-relay.socket","Plugins":[{"Name":"cloudtrail-relay"`)) {
		t.Errorf("%v: %s", err, out)
	}
}

// Kong hides what a plugin process prints, but not what -dump prints on standard
// error: that is where it says why the process is not going to start.
func TestDumpSaysWhyThePluginCannotStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]string{
		t.TempDir():                              "",
		"/no/such/folder":                        "no such file or directory",
		file:                                     "is not a folder",
		"/" + strings.Repeat("a", maxSocketPath): "longer than 107 bytes",
	} {
		cmd := exec.Command(built(t, "cloudtrail-relay"), "-dump", "-kong-prefix", prefix)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || !bytes.HasPrefix(out, []byte("{")) {
			t.Errorf("%s: %v: the schema is missing", prefix, err)
		}
		if text := stderr.String(); want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%s: %q, want %q", prefix, text, want)
		}
	}
}

const maxSocketPath = 107

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-kong-prefix", "/no/such/directory"}} {
		out, err := exec.Command(built(t, "cloudtrail-relay"), args...).CombinedOutput()
		if err == nil || len(out) == 0 {
			t.Errorf("%v: %v, %q", args, err, out)
		}
	}
}
