// Command empty is a plugin on go-pdk's own server whose log handler does
// nothing: what the protocol alone costs, and how go-pdk itself prints a
// schema. The tests of the real plugin hold it against this one.
package main

import (
	"fmt"
	"os"

	"github.com/Kong/go-pdk"        //nolint:depguard // what the plugin is held against
	"github.com/Kong/go-pdk/server" //nolint:depguard // the same
)

type config struct{}

func (*config) Log(*pdk.PDK) {}

func main() {
	if err := server.StartServer(func() any { return &config{} }, "1.0.0", 1); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
