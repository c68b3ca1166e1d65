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
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/Kong/go-pdk/server"
)

const (
	// name is the plugin's name in Kong. go-pdk takes it, and the socket's name,
	// from the base name of the executable, wherever that is.
	name = "cloudtrail-relay"
	// version is the plugin's version in Kong.
	version = "1.0.0"
	// priority orders the plugins of a phase; for a log plugin any will do.
	priority = 1
	// flushFor is what is left for a last ring: Kong sends SIGKILL about 50 ms after SIGTERM.
	flushFor = 40 * time.Millisecond
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// run serves until Kong stops the process. The flags are go-pdk's.
func run(stdout io.Writer) error {
	flag.Parse()
	prefix := flag.Lookup("kong-prefix").Value.String()
	if flag.Lookup("dump").Value.String() == "true" && flag.Lookup("help").Value.String() != "true" {
		return dump(stdout, prefix)
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the executable: %w", err)
	}
	if base := filepath.Base(executable); base != name {
		return fmt.Errorf("the executable is called %q, and Kong would take that for the plugin's name: call it %q", base, name)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	all := newSenders(newTarget)
	served := make(chan error, 1)
	go func() {
		// Returns only on an error; the end of the process ends it.
		served <- server.StartServer(func() any { return newConfig(all) }, version, priority)
	}()
	select {
	case err = <-served:
		if err == nil {
			err = errors.New("the plugin server stopped")
		}
	case <-ctx.Done():
		err = nil
	}
	flush, cancel := context.WithTimeout(context.Background(), flushFor)
	defer cancel()
	all.close(flush)
	return err
}
