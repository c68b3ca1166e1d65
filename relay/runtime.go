package main

import (
	"runtime"
	"runtime/debug"
)

// All tuning of Go's runtime is in this file. If the environment sets GOMEMLIMIT or GOGC,
// nothing is done about memory; if it sets GOMAXPROCS, nothing about processors.
const (
	// What the relay holds does not grow with the log, so its memory need not grow either:
	// garbage is collected often enough to stay near memoryLimit.
	memoryLimit = 22 << 20 // bytes, of what Go allocates
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
