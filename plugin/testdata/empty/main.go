// Command empty is a plugin whose log handler does nothing: what the protocol
// alone costs. The benchmark measures the real plugin beside it.
package main

import (
	"fmt"
	"os"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/server"
)

type config struct{}

func (*config) Log(*pdk.PDK) {}

func main() {
	if err := server.StartServer(func() any { return &config{} }, "1.0.0", 1); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
