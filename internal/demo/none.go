//go:build lambda.norpc

// Package demo is left out of the build for Lambda, which has no use for it.
package demo

import (
	"io"

	"github.com/urfave/cli/v3"
)

// Commands returns nothing.
func Commands(string, io.Writer, io.Writer) []*cli.Command { return nil }
