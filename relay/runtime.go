package main

import (
	"runtime"
	"runtime/debug"
)

// All tuning of Go's runtime is in this file. GOMEMLIMIT, GOGC and GOMAXPROCS have their
// usual meaning where the environment sets them.
const (
	// What the relay holds does not grow with the log, so neither need its memory:
	// garbage is collected often enough to stay near memoryLimit.
	memoryLimit = 23 << 20 // bytes, of what Go allocates
	gcPercent   = 400
	// historyMemory is the limit of relay history: a history can be longer than what
	// the relay holds otherwise.
	historyMemory = 512 << 20
)

func limitMemory(getenv func(string) string) {
	if getenv("GOMEMLIMIT") == "" && getenv("GOGC") == "" {
		debug.SetMemoryLimit(memoryLimit)
		debug.SetGCPercent(gcPercent)
	}
}

// allowHistoryMemory raises the limit until the returned function is called.
func allowHistoryMemory(getenv func(string) string) (undo func()) {
	if getenv("GOMEMLIMIT") != "" || getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetMemoryLimit(historyMemory)
	return func() { debug.SetMemoryLimit(before) }
}

// useOneProcessor lets Go use one processor until the returned function is called. A pass
// to CloudTrail Lake waits for its quota most of the time: one processor does more than
// that takes, and goroutines that need not wake up threads cost a tenth less.
func useOneProcessor(getenv func(string) string) (undo func()) {
	if getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
