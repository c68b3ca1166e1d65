// Command cloudtrail-relay is a plugin for Kong Gateway. On the route of the
// Admin API it rings the relay when an Admin request has been answered, so that
// the relay reads the audit log at once and not only on its schedule.
//
// It runs in the log phase, after the response: nothing that happens here can
// delay or break a request. Kong starts it as a process, asks it for its schema
// with -dump, and speaks go-pdk's protocol to it on a Unix socket. Build it
// under the name that Kong knows it by:
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
	"syscall"
	"time"
)

const (
	// name is the plugin's name in Kong, wherever the executable lies and whatever it is called.
	name = "cloudtrail-relay"
	// version is the plugin's version in Kong.
	version = "1.0.0"
	// priority orders the plugins of a phase; for a log plugin any will do.
	priority = 1
	// flushFor is what is left for a last ring: Kong sends SIGKILL about 50 ms after SIGTERM.
	flushFor = 40 * time.Millisecond
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

// run serves Kong until ctx ends. Flags and socket are those of go-pdk's
// StartServer, which kong.conf's settings for plugin servers are made for.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	prefix := flags.String("kong-prefix", "/usr/local/kong", "Kong's prefix `directory`, for the socket")
	schemaOnly := flags.Bool("dump", false, "print what Kong must know about the plugin, and exit")
	if flags.Parse(args) != nil {
		return errUsage
	}
	socket := path.Join(*prefix, name+".socket")
	if *schemaOnly {
		return dump(stdout, socket)
	}

	l, err := listen(socket)
	if err != nil {
		return err
	}
	all := newSenders(newTarget, slog.New(slog.NewTextHandler(stderr, nil)))
	s := newServer(all)
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }() //nolint:contextcheck // a sender outlives the event that starts it
	select {
	case err := <-served:
		served <- err // for the end of this function
	case <-ctx.Done():
	}
	_ = l.Close()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushFor)
	defer cancel()
	all.close(flush)
	s.close()
	return <-served
}
