package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
)

// schema is the plugin's schema in the form of Kong's own. go-pdk would derive one
// from Config that knows types only; Kong takes what -dump prints as it is, and
// then its Admin API refuses a bad setting with a reason, keeps the secret
// encrypted, and resolves {vault://…}. Every attribute in it is known to Kong
// 2.8 and later.
//
//go:embed schema.json
var schema []byte

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
	Schema   json.RawMessage
}

// dump prints what Kong asks for with -dump, on one line as go-pdk does.
func dump(w io.Writer, socket string) error {
	err := json.NewEncoder(w).Encode(dumped{
		Protocol:   "ProtoBuf:1",
		SocketPath: socket,
		Plugins: []dumpedPlugin{{
			Name: name, Phases: []string{"log"}, Version: version, Priority: priority, Schema: schema,
		}},
	})
	if err != nil {
		return fmt.Errorf("printing the schema: %w", err)
	}
	return nil
}
