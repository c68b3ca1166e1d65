package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The build for Lambda holds no emulator, and so no demo.
func TestLambdaBuildHasNoEmulators(t *testing.T) {
	t.Parallel()
	list := func(tags string) string {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	emulator := func(packages string) string {
		for line := range strings.Lines(packages) {
			if line = strings.TrimSpace(line); strings.Contains(line, "kong-cloudtrail/relay/internal/") && strings.HasSuffix(line, "test") {
				return line
			}
		}
		return ""
	}
	if name := emulator(list("lambda.norpc")); name != "" {
		t.Errorf("%s is in the build for Lambda", name)
	}
	if emulator(list("")) == "" {
		t.Error("the test does not find the emulators of the other build")
	}
}
