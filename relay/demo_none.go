//go:build lambda.norpc

package main

import "github.com/urfave/cli/v3"

// demoCommands returns nothing: the build for Lambda has no use for the demo.
func (e *env) demoCommands() []*cli.Command { return nil }
