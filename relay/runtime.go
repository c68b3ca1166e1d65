package main

import (
	"runtime"
	"runtime/debug"
)

// All tuning of Go's runtime is in this file. Memory is left alone if the environment sets
// GOMEMLIMIT or GOGC, and processors if it sets GOMAXPROCS.
const (
	// memoryLimit is the soft limit of what Go's runtime uses, in bytes. What the relay
	// holds does not grow with the log, so its memory need not grow either: near the limit,
	// garbage is collected more often.
	memoryLimit = 22 << 20
	// gcPercent lets garbage grow to four times what is in use before it is collected, as
	// long as memory stays below memoryLimit. Go's default of 100 would collect long before
	// that, and more often.
	gcPercent = 400
	// historyMemory is the limit for relay history, in bytes: a history can be larger than
	// anything else that the relay holds.
	historyMemory = 512 << 20
)

func limitMemory(getenv func(string) string) {
	if getenv("GOMEMLIMIT") == "" && getenv("GOGC") == "" {
		debug.SetMemoryLimit(memoryLimit)
		debug.SetGCPercent(gcPercent)
	}
}

// allowHistoryMemory raises the limit to historyMemory until the returned function is called.
func allowHistoryMemory(getenv func(string) string) (undo func()) {
	if getenv("GOMEMLIMIT") != "" || getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetMemoryLimit(historyMemory)
	return func() { debug.SetMemoryLimit(before) }
}

// useOneProcessor lets Go use one processor until the returned function is called. A pass
// to CloudTrail Lake waits for AWS's quota most of the time, so one processor is enough, and
// the pass takes a tenth less processor time, as no goroutine wakes up a thread.
func useOneProcessor(getenv func(string) string) (undo func()) {
	if getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
