package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// A file of variables with line ends of Windows leaves a carriage return at the end of
// each value, also of those that AWS's SDK reads by itself.
func TestVariablesOfAWSAreTrimmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 5, func(int) time.Time { return time.Now() })...)
	w.env = slices.Clone(w.env)
	for i, entry := range w.env {
		if strings.HasPrefix(entry, "AWS_") {
			w.env[i] = entry + " \r"
		}
	}
	w.once()
	w.expectAll(0)
}

// A proxy that cuts connections to AWS is named.
func TestProxyThatCutsIsNamed(t *testing.T) {
	t.Parallel()
	proxy := answering(t, "")
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 5, func(int) time.Time { return time.Now() })...)
	w.env = append(slices.Clone(w.env), "HTTPS_PROXY=http://user:pr0xy-secret@"+proxy+"\r", "NO_PROXY=127.0.0.1", "RELAY_RETRY_FOR=1s",
		"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA=https://cloudtrail-data.invalid")
	out, stderr := w.says(exitFailed, "once")
	contains(t, stderr, "through the proxy "+proxy)
	if strings.Contains(out+stderr, "pr0xy-secret") {
		t.Errorf("the proxy's password:\n%s", stderr)
	}
}
