package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

// schema is the plugin's schema in the form of Kong's own plugins. go-pdk would
// derive one from Config that knows nothing but types. Kong uses what -dump prints
// as it is: with this one its Admin API refuses a wrong setting and says why,
// encrypts the secret, and resolves {vault://…}. Kong 2.8 and later know every
// attribute in it.
//
//go:embed schema.json
var schema jsontext.Value

// dumped has the form of what go-pdk v0.11.2 prints (server/os.go, server/rpc.go).
type dumped struct {
	Protocol   string
	SocketPath string
	Plugins    []dumpedPlugin
}

type dumpedPlugin struct {
	Name     string
	Phases   []string
	Version  string
	Priority int
	Schema   jsontext.Value
}

// dump prints what Kong asks for with -dump, on one line as go-pdk does.
func dump(w io.Writer, socket string) error {
	err := json.MarshalWrite(w, dumped{
		Protocol:   "ProtoBuf:1",
		SocketPath: socket,
		Plugins: []dumpedPlugin{{
			Name: name, Phases: []string{"log"}, Version: version, Priority: priority, Schema: schema,
		}},
	})
	if err == nil {
		_, err = io.WriteString(w, "\n")
	}
	if err != nil {
		return fmt.Errorf("printing the schema: %w", err)
	}
	return nil
}

// maxSocketPath is the longest path of a Unix socket on Linux, in bytes.
const maxSocketPath = 107

// checkSocket reports why the plugin could not listen on socket, or returns nil.
// Kong logs what a plugin process prints at the level info, which is hidden by
// default. What -dump prints on standard error is in the output of Kong's container,
// and shows where somebody runs the command, so that is the place to say why the
// process is not going to start.
func checkSocket(socket string) error {
	dir := path.Dir(socket)
	if len(socket) > maxSocketPath {
		return fmt.Errorf("the path of its socket, %s, is longer than %d bytes", socket, maxSocketPath)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("the folder of its socket cannot be used: %w (set -kong-prefix in the start and query commands)", err)
	case !info.IsDir():
		return fmt.Errorf("%s, where its socket belongs, is not a folder (set -kong-prefix in the start and query commands)", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("it cannot make its socket in %s: %w (set -kong-prefix in the start and query commands to a folder that Kong can write to)", dir, err)
	}
	return nil
}
