package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDump(t *testing.T) {
	out, err := exec.Command(built(t, "cloudtrail-relay"), "-dump", "-kong-prefix", "/usr/local/kong").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, out, "", "  "); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/dump.golden.json"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(got.Bytes()), bytes.TrimSpace(want)) {
		t.Errorf("the schema that Kong gets has changed; %s should be:\n%s", golden, got.String())
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
	decoder := json.NewDecoder(bytes.NewReader(dump))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	name, _ := d.Plugins[0]["Name"].(string)
	schema, _ := d.Plugins[0]["Schema"].(map[string]any)
	if schema["name"] != name {
		t.Errorf("%v is called %v in its schema", name, schema["name"])
	}
	d.Plugins[0]["Schema"], d.Plugins[0]["Name"] = "…", "…"
	d.SocketPath = strings.ReplaceAll(d.SocketPath, name, "…")
	data, err := json.Marshal(d)
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

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-kong-prefix", "/no/such/directory"}} {
		out, err := exec.Command(built(t, "cloudtrail-relay"), args...).CombinedOutput()
		if err == nil || len(out) == 0 {
			t.Errorf("%v: %v, %q", args, err, out)
		}
	}
}
