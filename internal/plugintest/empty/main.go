// Command empty is a plugin on go-pdk's StartServer whose log handler does nothing.
// It shows what the protocol alone costs, and how go-pdk itself prints a schema. Tests
// compare the real plugin with it.
package main

import (
	"fmt"
	"os"

	"github.com/Kong/go-pdk"        //nolint:depguard // the plugin is compared with it
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
