package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The build for Lambda holds no test double, and so no demo.
func TestLambdaBuildHasNoDoubles(t *testing.T) {
	t.Parallel()
	list := func(tags string) string {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	double := func(packages string) string {
		for line := range strings.Lines(packages) {
			if line = strings.TrimSpace(line); strings.Contains(line, "kong-cloudtrail/relay/internal/") && strings.HasSuffix(line, "test") {
				return line
			}
		}
		return ""
	}
	if name := double(list("lambda.norpc")); name != "" {
		t.Errorf("%s is in the build for Lambda", name)
	}
	if double(list("")) == "" {
		t.Error("the test does not find the doubles of the other build")
	}
}
