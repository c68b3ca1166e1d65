package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// healthTimeout is less than container runtimes wait for a health check.
const healthTimeout = 3 * time.Second

// healthCommand is for images without a shell or curl: their health check is the
// program itself, with the settings of the one that serves.
func (e *env) healthCommand() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask the relay that serves at --ops-listen whether it is alive, for a container's health check",
		Description: "Asks /healthz, or with --ready /readyz: whether Kong, ledger and destination have been reached since the\n" +
			"start, and the ledger can be used now. Exits with 0 if it is so, with 1 if not.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "ready", Usage: "ask whether it is ready, not only alive"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			listen, err := config.OpsListen(flagValue(c), e.Getenv)
			if err != nil {
				return err
			}
			if listen == "" {
				return config.Usagef("--ops-listen (RELAY_OPS_LISTEN) is off: there is nothing to ask")
			}
			path := "/healthz"
			if c.Bool("ready") {
				path = "/readyz"
			}
			return askHealth(ctx, listen, path)
		},
	}
}

// askHealth asks who listens at an address of this machine.
func askHealth(ctx context.Context, listen, path string) error {
	resp, err := getOps(ctx, listen, path)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("asking for health: the relay answers " + path + " with " + resp.Status)
	}
	return nil
}

// getOps gets a path of the relay that serves at an address of this machine. The
// caller closes the body, for which there is as much time as for the answer.
func getOps(ctx context.Context, listen, path string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost" // who listens on every address listens there too
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	// No proxy: it is this machine.
	client := &http.Client{Timeout: healthTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Do(req)
}
