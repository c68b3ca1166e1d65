package redistest

import (
	"strconv"
	"testing"
)

// A port that was given is not given again, by another process that begins to count at the
// same place.
func TestFreePortIsKept(t *testing.T) {
	first := FreePort(t)
	n, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	nextPort.Store(uint32(n) - firstPort - 1)
	if second := FreePort(t); second == first {
		t.Errorf("%s was given twice", first)
	}
}
