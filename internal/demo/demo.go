//go:build !lambda.norpc

// Package demo shows the whole loop on one machine: an emulated Kong whose Admin
// requests go through the plugin, the relay, and an emulated CloudWatch Logs.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/daemon"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// settleFor bounds the wait for the last rows at the end.
const settleFor = 10 * time.Second

type demo struct {
	runFor  time.Duration // from the first Admin request on; 0: until ctx ends
	every   time.Duration // between two Admin requests
	page    string        // host:port of the page that shows what arrived
	plugin  bool          // notify the relay through the plugin instead of directly
	version string        // of the relay, for its page
	out     io.Writer
	stderr  io.Writer

	mu       sync.Mutex
	answered map[string]time.Time // request id → when Kong answered
	delays   []time.Duration
}

// run makes Admin requests and prints each event as it arrives, and a summary at the
// end. It listens on loopback only, and writes into a temporary folder. It fails if an
// entry was not delivered.
func (d *demo) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "relay-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	emu, err := startEmulators(d.page)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emu.close()) }()

	a, err := d.open(ctx, emu, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()

	fmt.Fprintf(d.out, "Kong's Admin API (emulated)      %s\n", emu.kongURL)
	fmt.Fprintf(d.out, "CloudWatch Logs (emulated)       %s   ← open it to see what arrives\n", emu.pageURL)

	ready := make(chan string, 1)
	options := daemon.Options{Version: d.version, Delivered: d.event, Listening: func(triggers, ops string) {
		fmt.Fprintf(d.out, "The relay's own page             http://%s/   ← how things stand\n\n", ops)
		emu.logs.LinkRelay("http://" + ops + "/")
		ready <- triggers
	}}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- daemon.Run(serving, a, options) }()
	var addr string
	select {
	case addr = <-ready:
	case err := <-served:
		return err
	}

	notify, stopNotifying, err := d.notifier(ctx, dir, "http://"+addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n%-12s %-32s %-10s %-8s %s\n", "EVENT TIME", "EVENT NAME", "USER", "TOOK", "WHAT CHANGED")
	asking := ctx
	if d.runFor > 0 {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, d.runFor)
		defer cancel()
	}
	made := d.traffic(asking, emu, notify)
	stopNotifying()

	// The last rows are still to be written, read and put.
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleFor)
	defer cancel()
	waitErr := emu.waitRows(settle)
	stopServing()
	if err := <-served; err != nil {
		return err
	}
	sum, err := a.Pipeline(pipeline.Observer{Delivered: d.event}, nil).Run(settle, pipeline.Request{Kind: audit.Reconcile, RequestRerun: true, Full: true, Wait: 15 * time.Second})
	if err = errors.Join(waitErr, err); err != nil {
		return err
	}
	return d.summary(made, sum, emu)
}

// open wires the relay to the emulators and to a ledger in a file.
func (d *demo) open(ctx context.Context, emu *emulators, dir string) (*app.App, error) {
	variables := map[string]string{
		"KONG_ADMIN_API": emu.kongURL, "RELAY_LOG_GROUP": cloudwatchtest.Group, "REGION": cloudwatchtest.Region, "RELAY_LEDGER": "bolt:" + filepath.Join(dir, "ledger.db"),
		"RELAY_OBJECTS": "true", "RELAY_LISTEN": "127.0.0.1:0", "RELAY_OPS_LISTEN": "127.0.0.1:0",
	}
	s, err := config.Load(config.NeedAll, nil, func(name string) string { return variables[name] }, os.ReadFile)
	if err != nil {
		return nil, err
	}
	s.UseAWS(aws.Config{
		Region: s.Region, BaseEndpoint: &emu.pageURL,
		Credentials: credentials.NewStaticCredentialsProvider(cloudwatchtest.AccessKeyID, cloudwatchtest.SecretAccessKey, ""),
	})
	log := slog.New(slog.NewTextHandler(d.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return app.Open(ctx, s, log, io.Discard, config.NeedPass)
}

// notifier returns a function that notifies the relay after an answer: the plugin as a process
// where it can be had, else a trigger client.
func (d *demo) notifier(ctx context.Context, dir, relayURL string) (notify func(id string), stop func(), err error) {
	if d.plugin {
		notify, stop, err := d.startPlugin(ctx, dir, relayURL)
		switch {
		case err == nil:
			fmt.Fprintln(d.out, "Each answer goes through the plugin, which runs in a separate process, as under Kong.")
			return notify, stop, nil
		case ctx.Err() != nil:
			return func(string) {}, func() {}, nil //nolint:nilerr // the demo was told to stop meanwhile
		}
		fmt.Fprintf(d.out, "The relay is notified directly, without the plugin: %v.\n", err)
	}
	client, err := trigger.NewClient(trigger.ClientOptions{URL: relayURL})
	if err != nil {
		return nil, nil, err
	}
	return func(id string) {
		if err := client.Notify(context.WithoutCancel(ctx), []string{id}); err != nil {
			fmt.Fprintf(d.out, "trigger failed: %v\n", err)
		}
	}, client.Close, nil
}

// traffic makes Admin requests until ctx ends, and returns how many.
func (d *demo) traffic(ctx context.Context, emu *emulators, notify func(id string)) int {
	made := 0
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for {
		id, err := emu.adminRequest(context.WithoutCancel(ctx), made)
		if err != nil {
			fmt.Fprintf(d.out, "Admin request failed: %v\n", err)
		} else {
			made++
			d.mu.Lock()
			d.answered[id] = time.Now()
			d.mu.Unlock()
			notify(id)
		}
		select {
		case <-ctx.Done():
			return made
		case <-tick.C:
		}
	}
}

func (d *demo) event(entries []audit.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		took := "-"
		if at, ok := d.answered[e.RequestID]; ok {
			delay := time.Since(at)
			d.delays = append(d.delays, delay)
			took = delay.Round(time.Millisecond).String()
		}
		fmt.Fprintf(d.out, "%-12s %-32.32s %-10.10s %-8s %s\n", time.Unix(e.Timestamp, 0).UTC().Format("15:04:05Z"), e.Method+e.Path,
			cmp.Or(e.RBACUserName, "anonymous"), took, strings.Join(changes.Lines(e.Changes), "; "))
	}
}

func (d *demo) summary(made int, sum pipeline.Summary, emu *emulators) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	held, arrived := emu.kong.Len(), emu.logs.Counts()
	lost := held - arrived.Distinct
	fmt.Fprintf(d.out, "\n%s made. In Kong's log: %d read = %d delivered, lost %d, repeated %d.\n",
		app.Plural(made, "Admin request"), held, arrived.Distinct, lost, arrived.Repeats)
	if n := len(d.delays); n > 0 {
		slices.Sort(d.delays)
		fmt.Fprintf(d.out, "From Kong's answer to the accepted event: median %s, longest %s (Kong's rows are 100 to 300 ms late, and a write waits for what it changed).\n",
			d.delays[n/2].Round(time.Millisecond), d.delays[n-1].Round(time.Millisecond))
	}
	if lost != 0 || sum.Failed != 0 || sum.Dead != 0 {
		return fmt.Errorf("the last pass left %d entries undelivered", lost)
	}
	return nil
}
