//go:build !lambda.norpc

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// startPlugin takes the plugin that lies beside this program, or builds it from
// the checkout.
func (d *demo) startPlugin(ctx context.Context, dir, relayURL string) (*pluginProcess, error) {
	const name = "cloudtrail-relay"
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
			return startPluginProcess(ctx, beside, dir, relayURL)
		}
	}
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(d.out, "Building the plugin …")
	binary := filepath.Join(dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./plugin")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building it failed: %w: %.200s", err, out)
	}
	return startPluginProcess(ctx, binary, dir, relayURL)
}

// checkout finds the folder of this module's source, from the working folder up.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if isFile(filepath.Join(dir, "go.mod")) && isFile(filepath.Join(dir, "plugin", "main.go")) {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("neither the source nor the built plugin is here")
		}
		dir = up
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
