// Package leaktest fails the tests of a package that leave goroutines behind.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, and exits. It is a TestMain.
func Main(m *testing.M) { os.Exit(Check(m.Run())) }

// Check returns the exit code of tests that ended with code: it fails those that passed, but whose
// goroutines do not end within a minute. Goleak alone waits for less than half a second, which a
// busy machine can take.
func Check(code int) int {
	if code != 0 {
		return code
	}
	err := goleak.Find()
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
