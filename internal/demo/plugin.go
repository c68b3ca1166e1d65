//go:build !lambda.norpc

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/plugintest"
)

// startPlugin starts the plugin as a process, under a host that speaks Kong's protocol. notify
// hands it the log event of an answer, as Kong does after it.
func (d *demo) startPlugin(ctx context.Context, dir, relayURL string) (notify func(id string), stop func(), err error) {
	binary, err := d.findPlugin(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	host, err := plugintest.Start(ctx, binary, dir)
	if err != nil {
		return nil, nil, err
	}
	instance, err := host.Instance(ctx, map[string]any{
		"relay_url": relayURL, "timeout_ms": 1000, "min_interval_ms": 100, "queue_size": 1000, "tls_verify": true,
	})
	if err != nil {
		return nil, nil, errors.Join(err, host.Close())
	}
	notify = func(id string) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		// The demo's last pass delivers what a plugin that is gone does not announce.
		_ = host.Log(ctx, instance, plugintest.Event{Headers: map[string]string{"X-Kong-Admin-Request-ID": id}})
	}
	return notify, func() { _ = host.Close() }, nil
}

// findPlugin returns the plugin that lies beside this program, or builds it from the checkout
// that the working folder is in.
func (d *demo) findPlugin(ctx context.Context, dir string) (binary string, err error) {
	const name, source = "cloudtrail-relay", "github.com/kong-cloudtrail/relay/plugin"
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
			return beside, nil
		}
	}
	const remedy = "put the built plugin, " + name + ", beside relay, or run the demo in a checkout of the source, with Go installed"
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("it is not built, and there is no go command on the PATH to build it: " + remedy)
	}
	// Without -mod=readonly, go could download a module of this name in the folder of another
	// module, and add it to that go.mod.
	if out, err := exec.CommandContext(ctx, "go", "list", "-mod=readonly", source).CombinedOutput(); err != nil {
		why, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("it is not built, and go does not find its source from this folder (%.200s): %s", why, remedy)
	}
	fmt.Fprintln(d.out, "Building the plugin …")
	binary = filepath.Join(dir, name)
	if out, err := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-o", binary, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building it failed: %w: %.200s", err, out)
	}
	return binary, nil
}
