// Command cloudtrail-relay is a plugin for Kong Gateway. On the route of the
// Admin API it triggers the relay when an Admin request has been answered, so that
// the relay reads the audit log at once and not only on its schedule.
//
// The plugin runs in the log phase, after the response: nothing that happens here
// can delay or break a request. Kong starts it as a process, asks it for its schema
// with -dump, and speaks go-pdk's protocol to it on a Unix socket. Build it with
//
//	CGO_ENABLED=0 go build -o cloudtrail-relay ./plugin
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"sync"
	"syscall"
	"time"
)

const (
	// name is the plugin's name in Kong. It does not depend on the name of the executable.
	name = "cloudtrail-relay"
	// version is the plugin's version in Kong.
	version = "1.0.0"
	// priority orders the plugins of a phase. For a log plugin the order does not matter.
	priority = 1
	// flushFor bounds the last triggers: Kong sends SIGKILL about 50 ms after SIGTERM.
	flushFor = 40 * time.Millisecond
	// parentEvery is how often the process looks for its parent.
	parentEvery = time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// run serves Kong until ctx ends. Its flags and its socket are those of go-pdk's
// StartServer, because Kong's settings for plugin servers are made for those.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	parent := os.Getppid() // at once: it may end at any time
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	prefix := flags.String("kong-prefix", "/usr/local/kong", "Kong's prefix `directory`, for the socket")
	schemaOnly := flags.Bool("dump", false, "print what Kong must know about the plugin, and exit")
	if flags.Parse(args) != nil {
		return errUsage
	}
	socket := path.Join(*prefix, name+".socket")
	if *schemaOnly {
		if err := checkSocket(socket); err != nil {
			fmt.Fprintf(stderr, "%s: Kong cannot start this plugin as it is set up now: %v\n", name, err)
		}
		return dump(stdout, socket)
	}

	l, err := listen(socket)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	all := newSenders(newTarget, slog.New(slog.NewTextHandler(stderr, nil)))
	s := newServer(all)
	var watch sync.WaitGroup
	watch.Go(func() { awaitOrphaned(ctx, parent, os.Getppid, parentEvery, end) })
	context.AfterFunc(ctx, func() { _ = l.Close() })
	err = s.serve(l) //nolint:contextcheck // a sender outlives the event that starts it
	end()
	watch.Wait()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushFor)
	defer cancel()
	all.close(flush)
	s.close()
	return err
}

// awaitOrphaned calls orphaned when the process has another parent than first, or
// returns when ctx ends. Kong starts another plugin process after its worker was
// killed, and does not know this one.
//
// A process whose parent was init from the start runs beside Kong, as a sidecar or
// a service, and no parent's end concerns it.
func awaitOrphaned(ctx context.Context, first int, parent func() int, every time.Duration, orphaned func()) {
	if first <= 1 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if parent() != first {
				orphaned()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
