package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v3"
)

// version is set by the release build.
var version = ""

func (e *env) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print it as JSON, with what it was built by"}},
		Action: func(_ context.Context, c *cli.Command) error {
			if !c.Bool("json") {
				fmt.Fprintln(e.Stdout, buildVersion())
				return nil
			}
			return printJSON(e.Stdout, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
		},
	}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
